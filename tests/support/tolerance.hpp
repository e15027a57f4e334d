// SPDX-License-Identifier: MIT
#pragma once

/// \file
/// The one place where tests get their tolerances from.

namespace mora_tests {

/// What rounding may do, relative to the largest number of a result.
template <class T>
inline constexpr double tolerance = 0.0;
template <>
inline constexpr double tolerance<float> = 1e-5;
template <>
inline constexpr double tolerance<double> = 1e-12;

/// Finite differences in double. The loss is linear in each argument, so that a large step costs no
/// exactness and keeps rounding small.
inline constexpr double difference_step = 1e-3;
inline constexpr double difference_tolerance = 1e-6;

/// The same through a whole model, which is far from linear, from four points: a step at which
/// neither the rounding of the loss over the step nor the fifth derivative times the step's fourth
/// power matters.
inline constexpr double model_difference_step = 5e-5;
inline constexpr double model_difference_tolerance = 1e-7;

/// Conjugate gradients on the normal equations stop at a slope 1e-10 times the first one.
inline constexpr double least_squares_tolerance = 1e-8;

/// Attention with scores of some tens: the exponential of a rounded number is that number times as
/// wrong.
template <class T>
inline constexpr double attention_tolerance = 50 * tolerance<T>;

/// A float64 model of transformers computes norms, softmax, rotary tables and the loss in float32,
/// whose rounding is 6e-8; over a few layers it grows to this. (Gradients do not agree within
/// 1.5e-6.)
inline constexpr double transformers_tolerance = 1e-6;
inline constexpr double transformers_gradient_tolerance = 2e-6;

/// With those casts made casts to float64, what remains are the angles of rotary positions: here
/// they are rounded to float32, as published weights were trained, there no longer. AdamW divides
/// gradients by their size, so that the smallest of them move its weights as much as the largest.
/// (Gradients do not agree within 5e-8, nor the losses of training within 2e-7.)
inline constexpr double wide_transformers_tolerance = 1e-7;
inline constexpr double wide_training_tolerance = 3e-7;

}  // namespace mora_tests
