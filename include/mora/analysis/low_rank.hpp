// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "mora/adapters/linear.hpp"
#include "mora/analysis/product_svd.hpp"
#include "mora/analysis/update_pieces.hpp"

/// \file
/// Any adapter as a plain LoRA, for programs that know nothing else: exactly where its update is a
/// product of two thin factors, else the best approximation of a rank.

namespace mora::inline MORA_ABI {

/// How far to go. With neither, the update is written as the factors that it has, without loss.
struct LowRankSettings {
  /// At most that, 1 ... max_rank.
  std::optional<Index> rank = {};
  /// The smallest rank with ||Delta W - B A||_F <= this * ||Delta W||_F; 0 <= it < 1. Where `rank`
  /// is smaller, the error is what that rank has.
  std::optional<double> relative_error = {};

  /// Throws ArgumentError naming the setting that is out of range.
  void validate() const {
    if (rank) detail::require_rank(*rank);
    if (relative_error && !(*relative_error >= 0.0 && *relative_error < 1.0)) {
      throw ArgumentError(
          detail::concat("relative_error: expected 0 <= it < 1, found ", *relative_error));
    }
  }
};

/// What became of it. The adapter's scale is 1.
template <Real T>
struct LowRankUpdate {
  LoraAdapter<T> adapter;
  /// ||Delta W - B A||_F / ||Delta W||_F before B and A are rounded to T; 0 for a zero update.
  double relative_error = 0.0;
};

namespace detail {

/// B A, scale 1. Throws NumericError where a number is not finite.
template <Real T>
[[nodiscard]] LoraAdapter<T> plain_lora(Matrix<T> a, Matrix<T> b) {
  if (!all_finite(a) || !all_finite(b)) {
    throw NumericError("low rank: a number of the factors is beyond the scalar type");
  }
  const Index rank = a.rows();
  return {std::move(a), std::move(b), {.rank = rank, .alpha = static_cast<double>(rank)}};
}

/// What both parts of a rank begin with. Throws ArgumentError for a rank beyond max_rank.
template <Real T>
[[nodiscard]] std::pair<Matrix<T>, Matrix<T>> zero_factors(Index in, Index out, Index rank) {
  require_rank(rank);
  return {Matrix<T>::Zero(rank, in), Matrix<T>::Zero(out, rank)};
}

/// The same piece by factors no wider than it is: one of them the identity.
inline void make_narrow(UpdatePiece& piece) {
  const Index rows = piece.left.rows();
  const Index cols = piece.right.rows();
  if (piece.left.cols() <= std::min(rows, cols)) return;
  if (rows <= cols) {
    piece.right = MatrixXd(piece.right * piece.left.transpose());
    piece.left = MatrixXd::Identity(rows, rows);
  } else {
    piece.left = MatrixXd(piece.left * piece.right.transpose());
    piece.right = MatrixXd::Identity(cols, cols);
  }
}

/// The pieces' own factors side by side.
template <Real T>
[[nodiscard]] LowRankUpdate<T> exact_factors(Index in, Index out, std::vector<UpdatePiece> pieces) {
  Index rank = 0;
  for (UpdatePiece& piece : pieces) {
    make_narrow(piece);
    rank += piece.left.cols();
  }
  auto [a, b] = zero_factors<T>(in, out, std::max<Index>(1, rank));
  Index first = 0;
  for (const UpdatePiece& piece : pieces) {
    const Index p = piece.left.cols();
    for (Index i = 0; i < piece.left.rows(); ++i) {
      b.block(piece.rows[i], first, 1, p) = piece.left.row(i).template cast<T>();
    }
    for (Index j = 0; j < piece.right.rows(); ++j) {
      a.block(first, piece.cols[j], p, 1) = piece.right.row(j).transpose().template cast<T>();
    }
    first += p;
  }
  return {plain_lora<T>(std::move(a), std::move(b))};
}

/// The best of a rank, by the singular values of all pieces together (Eckart and Young).
template <Real T>
[[nodiscard]] LowRankUpdate<T> best_factors(Index in, Index out,
                                            const std::vector<UpdatePiece>& pieces,
                                            const LowRankSettings& settings) {
  struct Component {
    double value;
    std::size_t piece;
    Index column;
  };
  std::vector<ThinSvd> parts;
  std::vector<Component> components;
  for (const UpdatePiece& piece : pieces) {
    parts.push_back(product_svd(piece.left, piece.right, SingularVectors::thin));
    for (Index i = 0; i < parts.back().values.size(); ++i) {
      if (parts.back().values[i] == 0.0) continue;
      components.push_back({parts.back().values[i], parts.size() - 1, i});
    }
  }
  std::stable_sort(components.begin(), components.end(),
                   [](const Component& a, const Component& b) { return a.value > b.value; });

  // rest[k]: what is left after k components, relative; added up from the smallest.
  std::vector<double> rest(components.size() + 1, 0.0);
  const double largest = components.empty() ? 1.0 : components.front().value;
  for (std::size_t k = components.size(); k-- > 0;) {
    const double value = components[k].value / largest;
    rest[k] = rest[k + 1] + value * value;
  }
  const double whole = rest[0];
  for (double& each : rest) each = whole > 0.0 ? std::sqrt(each / whole) : 0.0;
  const double aim = settings.relative_error.value_or(0.0);
  auto count = static_cast<std::size_t>(
      std::ranges::find_if(rest, [aim](double error) { return error <= aim; }) - rest.begin());
  if (settings.rank) count = std::min(count, static_cast<std::size_t>(*settings.rank));

  auto [a, b] = zero_factors<T>(in, out, std::max<Index>(1, static_cast<Index>(count)));
  for (std::size_t k = 0; k < count; ++k) {
    const auto& [value, p, column] = components[k];
    const double root = std::sqrt(value);
    const auto row = static_cast<Index>(k);
    for (std::size_t i = 0; i < pieces[p].rows.size(); ++i) {
      b(pieces[p].rows[i], row) = static_cast<T>(parts[p].u(i, column) * root);
    }
    for (std::size_t j = 0; j < pieces[p].cols.size(); ++j) {
      a(row, pieces[p].cols[j]) = static_cast<T>(parts[p].v(j, column) * root);
    }
  }
  return {plain_lora<T>(std::move(a), std::move(b)), rest[count]};
}

template <Real T>
[[nodiscard]] LowRankUpdate<T> low_rank(Index in, Index out, const std::vector<UpdatePiece>& pieces,
                                        const LowRankSettings& settings) {
  settings.validate();
  for (const UpdatePiece& piece : pieces) {
    if (!all_finite(piece.left) || !all_finite(piece.right)) {
      throw NumericError("low rank: the update is not finite");
    }
  }
  if (!settings.rank && !settings.relative_error) return exact_factors<T>(in, out, pieces);
  return best_factors<T>(in, out, pieces, settings);
}

}  // namespace detail

/// The adapter's update as s B A with s = 1. Without settings nothing is lost: rank
/// min(blocks * side, in, out) for MoRA, which for truncation and any sharing is side, and A holds
/// C's entries. (With rotation B and A are as large as W or larger; give a rank or an error.) Else
/// the truncated SVD, B and A of equal norms, with sharing and truncation in O((in + out) side^2).
/// Throws ArgumentError for settings out of range or a rank beyond max_rank, NumericError for an
/// update that is not finite, singular values beyond double or factors beyond T, ShapeError for
/// parameters that were given another shape.
template <class A>
requires requires(const A& adapter) { detail::update_pieces(adapter); }
[[nodiscard]] LowRankUpdate<typename A::Scalar> low_rank(const A& adapter,
                                                         const LowRankSettings& settings = {}) {
  return detail::low_rank<typename A::Scalar>(adapter.in_features(), adapter.out_features(),
                                              detail::update_pieces(adapter), settings);
}

/// Of a dense update [out, in], O(out in min(out, in)).
template <Real T>
[[nodiscard]] LowRankUpdate<T> low_rank(const Matrix<T>& update,
                                        const LowRankSettings& settings = {}) {
  const Index out = update.rows();
  const Index in = update.cols();
  detail::require_features(in, out);  // plain_lora would too, after rows of nothing were read
  detail::UpdatePiece piece;
  for (Index i = 0; i < out; ++i) piece.rows.push_back(i);
  for (Index j = 0; j < in; ++j) piece.cols.push_back(j);
  if (out < in) {
    piece.left = detail::MatrixXd::Identity(out, out);
    piece.right = update.template cast<double>().transpose();
  } else {
    piece.left = update.template cast<double>();
    piece.right = detail::MatrixXd::Identity(in, in);
  }
  return detail::low_rank<T>(in, out, {std::move(piece)}, settings);
}

/// Of a layer's update: as above, from the dense update for adapters without structure (full
/// fine-tuning) and those whose update depends on the frozen weight.
template <Adapter A>
[[nodiscard]] LowRankUpdate<typename A::Scalar> low_rank(const AdaptedLinear<A>& layer,
                                                         const LowRankSettings& settings = {}) {
  if constexpr (requires { detail::update_pieces(layer.adapter()); }) {
    return low_rank(layer.adapter(), settings);
  } else {
    return low_rank(layer.update(), settings);
  }
}

}  // namespace mora::inline MORA_ABI
