// SPDX-License-Identifier: MIT
#pragma once

#include "mora/adapters/linear.hpp"

/// Multiply-adds a token of an adapter's products, beside those of the frozen layer.
template <class T, class Op>
[[nodiscard]] mora::Index adapter_work(const mora::MoraAdapter<T, Op>& adapter) {
  return adapter.compressor().blocks() * adapter.side() * adapter.side();
}
template <class T>
[[nodiscard]] mora::Index adapter_work(const mora::LoraAdapter<T>& adapter) {
  return adapter.settings().rank * (adapter.in_features() + adapter.out_features());
}
template <class T>
[[nodiscard]] mora::Index adapter_work(const mora::FullAdapter<T>&) {
  return 0;
}
template <class T>
[[nodiscard]] mora::Index adapter_work(const mora::HiraAdapter<T>& adapter) {
  return adapter.in_features() * adapter.out_features();
}
template <class T>
[[nodiscard]] mora::Index adapter_work(const mora::LokrAdapter<T>& adapter) {
  return static_cast<mora::Index>(adapter.multiply_adds());
}
template <class T>
[[nodiscard]] mora::Index adapter_work(const mora::MissAdapter<T>& adapter) {
  return adapter.settings().rank * adapter.out_features();
}
template <class A>
[[nodiscard]] mora::Index adapter_work(const mora::DoraAdapter<A>& adapter) {
  return adapter_work(adapter.direction());
}
