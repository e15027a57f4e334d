// SPDX-License-Identifier: MIT
#pragma once

#include "mora/core/buffer.hpp"
#include "mora/core/matrix.hpp"
#include "mora/core/product.hpp"
#include "mora/core/scratch.hpp"
#include "mora/operators/concepts.hpp"

namespace mora::inline MORA_ABI::detail {

// What its working memory is for.
struct BlockGradient;
struct TurnedRow;

/// Takes the memory that add_window_gradient will need: after it, it does not throw.
template <class T, HasWindows<T> C>
void reserve_window_gradient(const C& compress, Index tokens) {
  (void)scratch<T, BlockGradient>(compress.side(), compress.side());
  (void)scratch<T, TurnedRow>(1, compress.side());
  for (Index block = 0; block < compress.blocks(); ++block) {
    for_each_window(compress, block, [&](Index, Index, Index count) {
      reserve_product<T>(compress.side(), count, tokens);
    });
  }
}

/// dm += s sum over tokens and blocks of g (C x)^T, for g = D^T dy [tokens, blocks * side]: with C
/// x = R x in a block, the sum is taken of the inputs as they are, and its rows are turned at the
/// end.
template <class T, HasWindows<T> C>
void add_window_gradient(MutableMap<T> dm, T scale, const C& compress, const ConstMap<T>& g,
                         const ConstMap<T>& x) {
  const Index side = compress.side();
  MutableMap<T> sum = scratch<T, BlockGradient>(side, side);
  MutableMap<T> turned = scratch<T, TurnedRow>(1, side);
  for (Index block = 0; block < compress.blocks(); ++block) {
    sum.setZero();
    const ConstMap<T> own = columns_of(g, block * side, side);
    for_each_window(compress, block, [&](Index input, Index from, Index count) {
      add_product<Operand::transposed, Operand::plain, T>(columns_of(sum, from, count), scale, own,
                                                          columns_of(x, input, count));
    });
    for (Index i = 0; i < side; ++i) {
      compress.turn(block, row_span(as_const(sum), i), row_span(turned, 0));
      dm.row(i) += turned.row(0);
    }
  }
}

}  // namespace mora::inline MORA_ABI::detail
