// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "mora/core/error.hpp"
#include "mora/core/index.hpp"
#include "mora/core/small_floats.hpp"

namespace mora::inline MORA_ABI {

/// What a tensor's numbers are in a safetensors file, in the order by which its writer sorts them.
/// All can be read and written as bytes; f16, bf16, f32, f64, f8_e4m3 (e4m3fn) and f8_e5m2 as
/// numbers too.
enum class Dtype : std::uint8_t {
  boolean,
  f4,  ///< e2m1, two in a byte.
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,  ///< Two floats.
  f64,
  i64,
  u64,
};

namespace detail {

struct DtypeRow {
  Dtype dtype;
  std::string_view name;
  int bits;
};

inline constexpr std::array dtype_rows = {
    DtypeRow{Dtype::boolean, "BOOL", 8},
    DtypeRow{Dtype::f4, "F4", 4},
    DtypeRow{Dtype::f6_e2m3, "F6_E2M3", 6},
    DtypeRow{Dtype::f6_e3m2, "F6_E3M2", 6},
    DtypeRow{Dtype::u8, "U8", 8},
    DtypeRow{Dtype::i8, "I8", 8},
    DtypeRow{Dtype::f8_e5m2, "F8_E5M2", 8},
    DtypeRow{Dtype::f8_e4m3, "F8_E4M3", 8},
    DtypeRow{Dtype::f8_e8m0, "F8_E8M0", 8},
    DtypeRow{Dtype::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    DtypeRow{Dtype::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    DtypeRow{Dtype::i16, "I16", 16},
    DtypeRow{Dtype::u16, "U16", 16},
    DtypeRow{Dtype::f16, "F16", 16},
    DtypeRow{Dtype::bf16, "BF16", 16},
    DtypeRow{Dtype::i32, "I32", 32},
    DtypeRow{Dtype::u32, "U32", 32},
    DtypeRow{Dtype::f32, "F32", 32},
    DtypeRow{Dtype::c64, "C64", 64},
    DtypeRow{Dtype::f64, "F64", 64},
    DtypeRow{Dtype::i64, "I64", 64},
    DtypeRow{Dtype::u64, "U64", 64},
};

[[nodiscard]] inline const DtypeRow& row_of(Dtype dtype) {
  const auto i = static_cast<std::size_t>(dtype);
  if (i >= dtype_rows.size()) {
    throw ArgumentError(
        concat("dtype: expected a value of mora::Dtype, found ", static_cast<int>(dtype)));
  }
  return dtype_rows[i];
}

/// Calls `use` with a number (of value 0) of the C++ type that the dtype's numbers are. False for a
/// dtype whose numbers cannot be converted.
template <class F>
[[nodiscard]] bool with_type_of(Dtype dtype, const F& use) {
  switch (dtype) {
    case Dtype::f16: return use(Float16{}), true;
    case Dtype::bf16: return use(BFloat16{}), true;
    case Dtype::f32: return use(float{}), true;
    case Dtype::f64: return use(double{}), true;
    case Dtype::f8_e4m3: return use(Float8E4M3{}), true;
    case Dtype::f8_e5m2: return use(Float8E5M2{}), true;
    default: return false;
  }
}

}  // namespace detail

/// As files call it: "F32". Throws ArgumentError for a number that is no dtype, as bits_of does.
[[nodiscard]] inline std::string_view name_of(Dtype dtype) { return detail::row_of(dtype).name; }

/// The size of one number: 4, 6, 8, 16, 32 or 64.
[[nodiscard]] inline int bits_of(Dtype dtype) { return detail::row_of(dtype).bits; }

/// Nothing for a name that is none.
[[nodiscard]] constexpr std::optional<Dtype> find_dtype(std::string_view name) {
  for (const detail::DtypeRow& row : detail::dtype_rows) {
    if (row.name == name) return row.dtype;
  }
  return {};
}

/// Whether the dtype's numbers can be converted.
[[nodiscard]] inline bool is_float(Dtype dtype) {
  return detail::with_type_of(dtype, [](auto) {});
}

/// The dtype whose numbers are of this C++ type: f32 for float.
template <detail::AnyFloat F>
[[nodiscard]] constexpr Dtype dtype_of() {
  if constexpr (std::same_as<F, float>) return Dtype::f32;
  if constexpr (std::same_as<F, double>) return Dtype::f64;
  if constexpr (std::same_as<F, Float16>) return Dtype::f16;
  if constexpr (std::same_as<F, BFloat16>) return Dtype::bf16;
  if constexpr (std::same_as<F, Float8E4M3>) return Dtype::f8_e4m3;
  if constexpr (std::same_as<F, Float8E5M2>) return Dtype::f8_e5m2;
}

}  // namespace mora::inline MORA_ABI
