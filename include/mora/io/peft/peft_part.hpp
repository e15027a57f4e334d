// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/io/peft/tensor_names.hpp"
#include "mora/io/peft/visit_adapter.hpp"

/// \file
/// What an adapter folder has of one module, of whatever method.

namespace mora::inline MORA_ABI::detail {

/// What is written of one module.
template <Real T>
struct PeftPart {
  struct Tensor {
    PeftRole role;
    std::vector<Index> shape;
    const T* data;
  };
  struct Mora {
    PeftOperator op;
    SideRounding rounding;
    double scale;
    Index in;
    Index out;
    Index side;
  };
  enum class Kind { whole, lora, dora, hira, lokr, miss, mora };

  std::string module;
  Kind kind = Kind::whole;
  Index rank = 0;                                   // but of a whole module
  std::optional<LoraSettings> lora = std::nullopt;  // of DoRA too
  std::optional<LokrSettings> lokr = std::nullopt;
  std::optional<Mora> mora = std::nullopt;
  std::vector<Tensor> tensors = {};
  double dropout = 0.0;
  [[nodiscard]] bool saved() const { return kind == Kind::whole; }
};

template <Real T>
[[nodiscard]] typename PeftPart<T>::Tensor peft_tensor(PeftRole role, const Matrix<T>& matrix) {
  return {role, {matrix.rows(), matrix.cols()}, matrix.data()};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const LoraAdapter<T>& adapter) {
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::lora,
          .rank = adapter.settings().rank,
          .lora = adapter.settings(),
          .tensors = {peft_tensor(PeftRole::a, adapter.a().value),
                      peft_tensor(PeftRole::b, adapter.b().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const DoraAdapter<LoraAdapter<T>>& adapter) {
  PeftPart<T> part = part_of(std::move(module), adapter.direction());
  part.kind = PeftPart<T>::Kind::dora;
  const Matrix<T>& magnitude = adapter.magnitude().value;
  part.tensors.push_back({PeftRole::magnitude, {magnitude.size()}, magnitude.data()});
  return part;
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const HiraAdapter<T>& adapter) {
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::hira,
          .rank = adapter.settings().rank,
          .tensors = {peft_tensor(PeftRole::hira_a, adapter.a().value),
                      peft_tensor(PeftRole::hira_b, adapter.b().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const LokrAdapter<T>& adapter) {
  PeftPart<T> part{.module = std::move(module),
                   .kind = PeftPart<T>::Kind::lokr,
                   .rank = adapter.settings().rank,
                   .lokr = adapter.settings()};
  const auto put = [&part](const LokrFactor<T>& factor, bool thin, const LokrRoles& roles) {
    part.tensors.push_back(peft_tensor(thin ? roles.a : roles.whole, factor.a.value));
    if (thin) part.tensors.push_back(peft_tensor(roles.b, factor.b.value));
  };
  put(adapter.w1(), adapter.shape().thin1, lokr_w1_roles);
  put(adapter.w2(), adapter.shape().thin2, lokr_w2_roles);
  return part;
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const MissAdapter<T>& adapter) {
  if (adapter.settings().rank > adapter.in_features()) {
    throw ArgumentError(concat(module, ": PEFT has MiSS of a rank up to in_features, ",
                               adapter.in_features(), ", found ", adapter.settings().rank));
  }
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::miss,
          .rank = adapter.settings().rank,
          .tensors = {peft_tensor(PeftRole::miss, adapter.matrix().value)}};
}

template <Real T, class Op>
[[nodiscard]] PeftPart<T> part_of(std::string module, const MoraAdapter<T, Op>& adapter) {
  const MoraSettings<Op>& settings = adapter.settings();
  return {.module = std::move(module),
          .kind = PeftPart<T>::Kind::mora,
          .rank = settings.rank,
          .mora = {{settings.op, settings.rounding, settings.scale, adapter.in_features(),
                    adapter.out_features(), adapter.side()}},
          .tensors = {peft_tensor(PeftRole::m, adapter.matrix().value)}};
}

template <Real T>
[[nodiscard]] PeftPart<T> part_of(std::string module, const FullAdapter<T>& adapter) {
  PeftPart<T> part{.module = std::move(module),
                   .tensors = {peft_tensor(PeftRole::weight, adapter.weight().value)}};
  const Matrix<T>& bias = adapter.bias().value;
  if (bias.size() != 0) part.tensors.push_back({PeftRole::bias, {bias.size()}, bias.data()});
  return part;
}

/// Throws ArgumentError for an adapter of a type that no folder can name.
template <Real T>
[[nodiscard]] PeftPart<T> part_of(const AttachedModule<T>& attached) {
  std::string module(attached.module);
  if (attached.trained) {
    PeftPart<T> part{.module = std::move(module),
                     .tensors = {peft_tensor(PeftRole::weight, *attached.trained)}};
    if (attached.vector) part.tensors.front().shape = {attached.trained->size()};
    return part;
  }
  attached.adapter->require_shapes();
  std::optional<PeftPart<T>> part;
  const bool known = visit_adapter(
      *attached.adapter, [&](const auto& adapter) { part.emplace(part_of(module, adapter)); });
  if (!known) {
    throw ArgumentError(
        concat(module, ": its adapter is of a type that an adapter folder cannot name"));
  }
  part->dropout = attached.dropout;
  return *std::move(part);
}

template <Real T>
[[nodiscard]] std::vector<PeftPart<T>> parts_of(std::span<const AttachedModule<T>> modules) {
  std::vector<PeftPart<T>> parts;
  for (const AttachedModule<T>& module : modules) parts.push_back(part_of(module));
  return parts;
}

}  // namespace mora::inline MORA_ABI::detail
