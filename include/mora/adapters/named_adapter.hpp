// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <string_view>

#include "mora/adapters/any_adapter.hpp"

namespace mora::inline MORA_ABI {

/// An adapter that exists already, and the module of a model that it is for. For a norm or an
/// embedding it is a FullAdapter, a norm's of one row.
template <Real T>
struct NamedAdapter {
  std::string module;  ///< "model.layers.0.self_attn.q_proj".
  AnyAdapter<T> adapter;
  double dropout = 0.0;  ///< On the adapter's input, in training: 0 <= dropout < 1.
};

/// What a model has on one of its modules, to be read; valid until the model changes.
template <Real T>
struct AttachedModule {
  std::string_view module;
  const AnyAdapter<T>* adapter = nullptr;
  const Matrix<T>* trained = nullptr;  ///< Instead: a norm or an embedding, which trains as a copy.
  bool vector = false;                 ///< Whether that is a vector in files.
  double dropout = 0.0;
};

}  // namespace mora::inline MORA_ABI
