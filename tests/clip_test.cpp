// SPDX-License-Identifier: MIT
#include <mora/optim/clip.hpp>

#include "support/fixture.hpp"
#include "support/misuse.hpp"
#include "support/not_finite.hpp"
#include "support/optimizers.hpp"

/// \file
/// The norm of gradients, and clipping by it against PyTorch's.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Matrix;

template <class T>
void expect_clips_like_pytorch(const Fixture& fixture, const std::string& name) {
  SCOPED_TRACE(name);
  TwoParameters<T> module;
  module.first.gradient = fixture.tensor(name + ".a.before").template cast<T>();
  module.second.gradient = fixture.tensor(name + ".b.before").template cast<T>();
  const Matrix<double> norm = fixture.tensor(name + ".norm");
  EXPECT_TRUE(near<T>(mora::gradient_norm(module).norm, norm(0, 0), norm(0, 0)));
  const mora::GradientNorm found =
      mora::clip_gradient_norm(module, fixture.number(name + ".max_norm"));
  EXPECT_TRUE(near<T>(found.norm, norm(0, 0), norm(0, 0)));
  EXPECT_TRUE(found.finite());
  EXPECT_TRUE(found.not_finite.empty());
  EXPECT_TRUE(near(module.first.gradient, fixture.tensor(name + ".a.after")));
  EXPECT_TRUE(near(module.second.gradient, fixture.tensor(name + ".b.after")));
}

TEST(Clip, IsPyTorchs) {
  const Fixture fixture("schedules.safetensors");
  for (const std::string name : {"clips", "clips_not"}) {
    expect_clips_like_pytorch<double>(fixture, name);
    expect_clips_like_pytorch<float>(fixture, name);
  }
}

TEST(Clip, LeavesEveryBitOfASmallGradient) {
  Random random(1);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.gradient;
  const double norm = mora::gradient_norm(module).norm;
  EXPECT_EQ(mora::clip_gradient_norm(module, 2.0 * norm).norm, norm);
  EXPECT_EQ(mora::clip_gradient_norm(module, infinity<double>).norm, norm);
  EXPECT_TRUE(same_bits(module.first.gradient, before));
  // By the 1e-6 in the denominator.
  mora::clip_gradient_norm(module, norm);
  EXPECT_FALSE(same_bits(module.first.gradient, before));
  EXPECT_TRUE(near<double>(mora::gradient_norm(module).norm, norm * norm / (norm + 1e-6), norm));
}

// A float's square may be too small or too large for a float, and many small ones add up.
TEST(Clip, SumsInDouble) {
  TwoParameters<float> module;
  for (const float size : {1e-30f, 1.0f, 1e30f}) {
    module.first.gradient = Matrix<float>::Constant(300, 400, size);
    const double expected = double(size) * std::sqrt(120000.0);
    EXPECT_TRUE(near<double>(mora::gradient_norm(module).norm, expected, expected));
    mora::clip_gradient_norm(module, 0.5);
    const double clipped = size < 1e-20f ? expected : 0.5 * expected / (expected + 1e-6);
    EXPECT_TRUE(near<float>(mora::gradient_norm(module).norm, clipped, clipped));
  }
}

TEST(Clip, NamesTheFirstGradientThatIsNotFiniteAndChangesNothing) {
  for (const double bad : {nan<double>, infinity<double>, -infinity<double>}) {
    Random random(2);
    auto module = random_parameters(random);
    module.second.gradient(0, 1) = bad;
    const auto before = module;
    mora::GradientNorm found = mora::clip_gradient_norm(module, 1e-3);
    EXPECT_FALSE(found.finite());
    EXPECT_EQ(found.not_finite, "second");
    module.first.gradient(2, 3) = bad;
    found = mora::clip_gradient_norm(module, 1e-3);
    EXPECT_EQ(found.not_finite, "first");
    EXPECT_EQ(mora::gradient_norm(module).not_finite, "first");
    module.first.gradient(2, 3) = before.first.gradient(2, 3);
    EXPECT_TRUE(same_bits(module.first.gradient, before.first.gradient));
    EXPECT_TRUE(same_bits(module.second.gradient, before.second.gradient));
  }
}

TEST(Clip, CountsAMissingGradientAsZero) {
  Random random(3);
  auto module = random_parameters(random);
  const double both = mora::gradient_norm(module).norm;
  const double second = module.second.gradient.norm();
  module.first.gradient.resize(0, 0);
  EXPECT_LT(second, both);
  EXPECT_TRUE(near<double>(mora::gradient_norm(module).norm, second, second));
  module.second.gradient.resize(0, 0);
  EXPECT_EQ(mora::clip_gradient_norm(module, 1.0).norm, 0.0);
}

TEST(Clip, RefusesAMaximumThatIsNotPositive) {
  Random random(4);
  auto module = random_parameters(random);
  const Matrix<double> before = module.first.gradient;
  for (const double maximum : {0.0, -1.0, -infinity<double>, nan<double>}) {
    EXPECT_TRUE(throws<ArgumentError>({"maximum norm"},
                                      [&] { mora::clip_gradient_norm(module, maximum); }));
  }
  EXPECT_TRUE(same_bits(module.first.gradient, before));
}

}  // namespace
}  // namespace mora_tests
