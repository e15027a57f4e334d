// SPDX-License-Identifier: MIT
#include "support/operators.hpp"
#include "support/not_finite.hpp"

#include <functional>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "support/compare.hpp"
#include "support/random.hpp"

/// \file
/// The laws that every pair of C and D keeps, whatever it computes: what gradients and merging rest
/// on. Over every operator of support/operators.hpp, both scalars and every awkward shape.

namespace mora_tests {
namespace {

using mora::RowVector;

/// A map between vectors that writes its result over, or adds it to, what is there.
template <class T>
struct Map {
  std::string name;
  Index from = 0;
  Index to = 0;
  bool adds = false;
  std::function<void(std::span<const T>, std::span<T>)> function;

  [[nodiscard]] RowVector<T> into(const RowVector<T>& x, RowVector<T> there) const {
    const auto size = [](const RowVector<T>& v) { return static_cast<std::size_t>(v.size()); };
    function(std::span<const T>(x.data(), size(x)), std::span<T>(there.data(), size(there)));
    return there;
  }
  [[nodiscard]] RowVector<T> operator()(const RowVector<T>& x) const {
    return into(x, RowVector<T>::Zero(to));
  }
};

/// An operator's pair for one shape, whatever its type. The functions hold copies of C and D, which
/// outlive the original.
template <class T>
struct AnyPair {
  Index in = 0;
  Index out = 0;
  Index side = 0;
  Index blocks = 0;
  Index width = 0;  // blocks * side
  Map<T> compress;
  Map<T> compress_adjoint;
  Map<T> decompress;
  Map<T> decompress_adjoint;
  std::vector<Map<T>> block_adjoints;  // empty where C or D has no such member
  std::vector<Map<T>> turns;           // of C's blocks
  std::vector<Map<T>> turns_back;
  std::function<Index(Index)> first_input;
  std::function<void(Index, const std::function<void(Index)>&)> for_each_source;
  double compress_gain = infinity<double>;
  double decompress_gain = infinity<double>;
};

template <class T, class C, class D>
AnyPair<T> any_pair(const mora::OperatorPair<C, D>& pair) {
  const C c = pair.compress;
  const D d = pair.decompress;
  const Index in = c.in_features();
  const Index out = d.out_features();
  const Index width = c.blocks() * c.side();
  AnyPair<T> any;
  any.in = in;
  any.out = out;
  any.side = c.side();
  any.blocks = c.blocks();
  any.width = width;
  any.compress = {"C", in, width, false, [c](auto x, auto z) { c.apply(x, z); }};
  any.compress_adjoint = {"C^T", width, in, true, [c](auto z, auto x) { c.add_adjoint(z, x); }};
  any.decompress = {"D", width, out, true, [d](auto z, auto y) { d.add(z, y); }};
  any.decompress_adjoint = {"D^T", out, width, false,
                            [d](auto y, auto z) { d.apply_adjoint(y, z); }};
  if constexpr (requires(std::span<const T> z, std::span<T> x) { c.add_block_adjoint(0, z, x); }) {
    for (Index i = 0; i < c.blocks(); ++i) {
      any.block_adjoints.push_back({"block of C^T", c.side(), in, true,
                                    [c, i](auto z, auto x) { c.add_block_adjoint(i, z, x); }});
    }
  }
  if constexpr (mora::detail::HasWindows<C, T>) {
    any.first_input = [c](Index block) { return c.first_input(block); };
    for (Index i = 0; i < c.blocks(); ++i) {
      any.turns.push_back(
          {"turn", c.side(), c.side(), false, [c, i](auto z, auto to) { c.turn(i, z, to); }});
      any.turns_back.push_back({"turn back", c.side(), c.side(), false,
                                [c, i](auto z, auto to) { c.turn_back(i, z, to); }});
    }
  }
  if constexpr (requires { d.for_each_source(0, [](Index) {}); }) {
    any.for_each_source = [d](Index output, const auto& f) { d.for_each_source(output, f); };
  }
  if constexpr (requires { c.gain(); }) any.compress_gain = c.gain();
  if constexpr (requires { d.gain(); }) any.decompress_gain = d.gain();
  return any;
}

/// Makes an operator's pair; nothing where the operator refuses a shape.
template <class T>
using Make = std::function<std::optional<AnyPair<T>>(const Shape&)>;
struct Kind {
  std::string name;
  std::tuple<Make<float>, Make<double>> make;
};
std::ostream& operator<<(std::ostream& stream, const Kind& kind) { return stream << kind.name; }

template <class T, class Op>
Make<T> maker(const Op& op) {
  return [op](const Shape& shape) -> std::optional<AnyPair<T>> {
    const auto side = side_for(op, shape);
    if (!side) return std::nullopt;
    EXPECT_LE(*side, shape.side());
    EXPECT_EQ(op.fit_side(*side), *side);
    const auto pair = op.make(shape.in, shape.out, *side);
    EXPECT_EQ(pair.compress.side(), *side);
    EXPECT_EQ(pair.decompress.side(), *side);
    EXPECT_EQ(pair.decompress.blocks(), pair.compress.blocks());
    return any_pair<T>(pair);
  };
}

class OperatorLaws : public testing::TestWithParam<Kind> {
 protected:
  /// Calls `law(pair, random)` for both scalars and every awkward shape, until one fails.
  template <class F>
  static void for_each_pair(const F& law) {
    for_each_pair_of<float>(law);
    for_each_pair_of<double>(law);
  }
  /// The same for C, C^T, D and D^T of the pairs: `law(map, random)`.
  template <class F>
  static void for_each_map(const F& law) {
    for_each_pair([&]<class T>(const AnyPair<T>& pair, Random& random) {
      for (const Map<T>& map :
           {pair.compress, pair.compress_adjoint, pair.decompress, pair.decompress_adjoint}) {
        SCOPED_TRACE(map.name);
        law(map, random);
      }
    });
  }

 private:
  template <class T, class F>
  static void for_each_pair_of(const F& law) {
    std::uint64_t seed = 1;
    for (const Shape& shape : awkward_shapes) {
      SCOPED_TRACE(shape);
      const auto pair = std::get<Make<T>>(GetParam().make)(shape);
      Random random(seed++);
      if (pair) law(*pair, random);
      if (HasFailure()) return;
    }
  }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for_each_operator([&](const char* name, const auto& op) {
    all.push_back({name, {maker<float>(op), maker<double>(op)}});
  });
  return all;
}
INSTANTIATE_TEST_SUITE_P(, OperatorLaws, testing::ValuesIn(kinds()),
                         [](const auto& kind) { return kind.param.name; });

TEST_P(OperatorLaws, SizesAreThoseAskedFor) {
  for (const Shape& shape : awkward_shapes) {
    SCOPED_TRACE(shape);
    const auto pair = std::get<Make<double>>(GetParam().make)(shape);
    if (!pair) continue;
    EXPECT_EQ(pair->in, shape.in);
    EXPECT_EQ(pair->out, shape.out);
    EXPECT_GE(pair->side, 1);
    EXPECT_GE(pair->blocks, 1);
  }
}

template <class T>
double dot(const RowVector<T>& a, const RowVector<T>& b) {
  return a.template cast<double>().dot(b.template cast<double>());
}

TEST_P(OperatorLaws, AdjointsAreAdjoint) {
  for_each_pair([]<class T>(const AnyPair<T>& pair, Random& random) {
    const auto x = random.vector<T>(pair.in);
    const auto y = random.vector<T>(pair.out);
    const auto z = random.vector<T>(pair.width);
    const RowVector<T> cx = pair.compress(x);
    const RowVector<T> dz = pair.decompress(z);
    EXPECT_TRUE(near<T>(dot<T>(cx, z), dot<T>(x, pair.compress_adjoint(z)),
                        dot<T>(cx.cwiseAbs(), z.cwiseAbs())));
    EXPECT_TRUE(near<T>(dot<T>(dz, y), dot<T>(z, pair.decompress_adjoint(y)),
                        dot<T>(dz.cwiseAbs(), y.cwiseAbs())));
  });
}

TEST_P(OperatorLaws, MapsAreLinear) {
  for_each_map([]<class T>(const Map<T>& map, Random& random) {
    const auto u = random.vector<T>(map.from);
    const auto v = random.vector<T>(map.from);
    const double size = double((map(u).cwiseAbs() + T(3) * map(v).cwiseAbs()).maxCoeff());
    EXPECT_TRUE(
        near(map(T(0.75) * u - T(3) * v), T(0.75) * map(u) - T(3) * map(v), {.magnitude = size}));
    EXPECT_TRUE(equal(map(RowVector<T>::Zero(map.from)), RowVector<T>::Zero(map.to)));
  });
}

TEST_P(OperatorLaws, AddAddsAndApplyOverwrites) {
  for_each_map([]<class T>(const Map<T>& map, Random& random) {
    const auto x = random.vector<T>(map.from);
    if (map.adds) {
      const auto there = random.vector<T>(map.to, 3.0);
      EXPECT_TRUE(near(map.into(x, there), there + map(x), {.magnitude = 3.0}));
      EXPECT_TRUE(near(map.into(x, map(x)), T(2) * map(x)));
    } else {
      EXPECT_TRUE(same_bits(map.into(x, RowVector<T>::Constant(map.to, nan<T>)), map(x)));
    }
  });
}

// The optional members, which merging and passes use, say the same as the others.

TEST_P(OperatorLaws, BlocksAreTurnedWindows) {
  for_each_pair([]<class T>(const AnyPair<T>& pair, Random& random) {
    const auto x = random.vector<T>(pair.in);
    const RowVector<T> cx = pair.compress(x);
    Index block = 0;
    for (const Map<T>& turn : pair.turns) {
      RowVector<T> window(pair.side);
      for (Index j = 0; j < pair.side; ++j) window[j] = x[(pair.first_input(block) + j) % pair.in];
      EXPECT_TRUE(near(turn(window), cx.segment(block * pair.side, pair.side)));
      const auto z = random.vector<T>(pair.side);
      const Map<T>& back = pair.turns_back[static_cast<std::size_t>(block)];
      EXPECT_TRUE(near<T>(dot<T>(turn(window), z), dot<T>(window, back(z)),
                          dot<T>(turn(window).cwiseAbs(), z.cwiseAbs())));
      EXPECT_TRUE(same_bits(back.into(z, RowVector<T>::Constant(pair.side, nan<T>)), back(z)));
      ++block;
    }
  });
}

TEST_P(OperatorLaws, BlockAdjointIsTheAdjointOfOneBlock) {
  for_each_pair([]<class T>(const AnyPair<T>& pair, Random& random) {
    const auto there = random.vector<T>(pair.in);
    const auto z = random.vector<T>(pair.side);
    Index block = 0;
    for (const Map<T>& map : pair.block_adjoints) {
      RowVector<T> all = RowVector<T>::Zero(pair.width);
      all.segment(block++ * pair.side, pair.side) = z;
      EXPECT_TRUE(near(map.into(z, there), pair.compress_adjoint.into(all, there)));
    }
  });
}

TEST_P(OperatorLaws, SourcesAreTheColumnsOfTheAdjoint) {
  for_each_pair([]<class T>(const AnyPair<T>& pair, Random&) {
    for (Index output = 0; pair.for_each_source && output < pair.out; ++output) {
      RowVector<T> sources = RowVector<T>::Zero(pair.width);
      pair.for_each_source(output, [&](Index entry) { sources[entry] += T(1); });
      EXPECT_TRUE(equal(sources, pair.decompress_adjoint(RowVector<T>::Unit(pair.out, output))));
    }
  });
}

TEST_P(OperatorLaws, GainsAreBounds) {
  for_each_pair([]<class T>(const AnyPair<T>& pair, Random&) {
    const auto largest = [](const Map<T>& map) {
      double largest_sum = 0.0;
      for (Index i = 0; i < map.from; ++i) {
        const RowVector<T> column = map(RowVector<T>::Unit(map.from, i));
        largest_sum = std::max(largest_sum, double(column.cwiseAbs().sum()));
      }
      return largest_sum;
    };
    EXPECT_LE(largest(pair.compress), pair.compress_gain);
    EXPECT_LE(largest(pair.decompress_adjoint), pair.decompress_gain);
  });
}

}  // namespace
}  // namespace mora_tests
