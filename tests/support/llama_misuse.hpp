// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "support/llama.hpp"
#include "support/misuse.hpp"

namespace mora_tests {

/// Everything that a caller can see of a model: weights, adapters of every name with gradients,
/// what is switched on, where dropout is, and whether it is merged, with its output.
template <class T>
[[nodiscard]] Bits bits_of(const Llama<T>& model) {
  Bits bits;
  for (const auto& weight : model.weights()) bits.bytes += bits_of(weight.weight()).bytes;
  const auto visit = [&](const Llama<T>& each) {
    each.visit_parameters([&](std::string_view name, const auto& p) {
      bits.bytes.append(name).append(bits_of(p.value).bytes).append(bits_of(p.gradient).bytes);
    });
  };
  visit(model);
  Llama<T> copy = model;
  copy.unmerge();
  for (const std::string& name : model.names()) {
    copy.activate(name);
    bits.bytes += name;
    visit(copy);
  }
  bits.bytes += model.active() + std::to_string(model.dropout().seed) + "," +
                std::to_string(model.dropout().passes);
  bits.bytes += model.merged() ? "merged" : "not merged";
  bits.bytes += bits_of(model.logits(random_batch())).bytes;
  return bits;
}

/// Whether `call` throws as in `throws`, and no bit of the model has changed.
template <class E, class T>
[[nodiscard]] testing::AssertionResult refuses(const Llama<T>& model,
                                               std::initializer_list<std::string_view> parts,
                                               const Call& call) {
  const Bits before = bits_of(model);
  testing::AssertionResult result = throws<E>(parts, call);
  if (result && bits_of(model) != before) {
    return testing::AssertionFailure() << "throws as it should, but has changed the model";
  }
  return result;
}

}  // namespace mora_tests
