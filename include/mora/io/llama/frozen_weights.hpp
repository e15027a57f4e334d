// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/checkpoint_folder.hpp"
#include "mora/io/llama/stored_weight.hpp"
#include "mora/io/safetensors.hpp"
#include "mora/io/safetensors_writer.hpp"
#include "mora/models/llama/llama.hpp"

/// \file
/// The frozen weights of a model in a checkpoint of a run, for runs that fold adapters into them
/// (Llama::restart): what they are then stands in no other file.

namespace mora::inline MORA_ABI {

namespace detail {

inline constexpr const char* frozen_weights_file = "frozen.safetensors";

/// Calls `use` with a number of the type that the weight's numbers have.
template <Real T, class F>
void with_number_of(const FrozenLinear<T>& weight, const F& use) {
  FrozenAccess::visit(weight, [&]<class W>(const W& w) {
    if constexpr (requires { w.stride; }) {
      use(*w.data);
    } else {
      use(T{});
    }
  });
}

}  // namespace detail

/// Writes all frozen weights in the numbers that they are kept in, next to what save_training_state
/// writes. Throws StateError while the model is merged, FileError where the system refuses.
template <Real T>
void save_frozen_weights(const CheckpointWriter& writer, const Llama<T>& model) {
  if (model.merged()) {
    throw StateError("save_frozen_weights: the model is merged; unmerge it first");
  }
  std::vector<TensorInfo> infos;
  std::map<std::string_view, std::size_t> places;
  for (std::size_t place = 0; place < model.tensors().size(); ++place) {
    const LlamaTensor& tensor = model.tensors()[place];
    detail::with_number_of(model.weights()[place], [&]<class Number>(Number) {
      infos.push_back({tensor.name, dtype_of<Number>(), {tensor.rows, tensor.cols}});
    });
    places.emplace(tensor.name, place);
  }
  SafetensorsWriter file(writer.path(detail::frozen_weights_file), std::move(infos));
  for (const TensorInfo& info : file.tensors()) {
    detail::write_weight(file, info.name, model.weights()[places.at(info.name)]);
  }
  file.commit();
}

/// Puts them back, mapped from the checkpoint, whose files may be removed meanwhile but not written
/// over. Adapters stay as they are: the caller has attached those of that restart, with their
/// seeds, and load_training_state puts their numbers back. Throws FormatError naming the tensor for
/// another scalar, shape or set of tensors, StateError while merged; nothing has changed then.
template <Real T>
void load_frozen_weights(const std::filesystem::path& checkpoint, Llama<T>& model) {
  const SafetensorsFile file(checkpoint / detail::frozen_weights_file);
  std::vector<FrozenLinear<T>> weights;
  std::set<std::string> known;
  for (const LlamaTensor& wanted : model.tensors().all()) {
    const StoredTensor tensor = file.tensor(wanted.name);
    tensor.require_shape({wanted.rows, wanted.cols});
    const auto add = [&]<class Number>(Number) {
      weights.push_back(detail::stored_weight<T, Number>(tensor, wanted.rows, wanted.cols));
    };
    if (tensor.dtype() == Dtype::f16) {
      add(Float16{});
    } else if (tensor.dtype() == Dtype::bf16) {
      add(BFloat16{});
    } else if (tensor.dtype() == dtype_of<T>()) {
      add(T{});
    } else {
      throw FormatError(file.path(), detail::concat("tensor ", detail::in_quotes(wanted.name)),
                        detail::concat("expected ", name_of(dtype_of<T>()), ", F16 or BF16, found ",
                                       name_of(tensor.dtype())));
    }
    known.insert(wanted.name);
  }
  detail::require_no_more(file, known);
  model.set_weights(std::move(weights));
}

}  // namespace mora::inline MORA_ABI
