// SPDX-License-Identifier: MIT
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "mora/core/elementwise.hpp"
#include "mora/core/parameter.hpp"
#include "mora/io/checkpoint_folder.hpp"
#include "mora/io/safetensors.hpp"
#include "mora/io/safetensors_writer.hpp"
#include "mora/optim/optimizer.hpp"
#include "mora/train/sampler.hpp"
#include "mora/train/settings.hpp"

/// \file
/// All that a training run needs to go on bit for bit, in a checkpoint: parameters, the optimizer's
/// memory, the position in the data, counters of random streams. In two safetensors files, so that
/// every other tool can look at them.

namespace mora::inline MORA_ABI {

/// Where a run stands, beside its parameters and its optimizer.
struct TrainingPosition {
  TrainState state;
  DataPosition data;
  /// States of random streams and what else a program counts: {"dropout.passes", 12}.
  std::map<std::string, std::uint64_t> counters = {};

  bool operator==(const TrainingPosition&) const = default;
};

namespace detail {

inline constexpr const char* parameters_file = "parameters.safetensors";
inline constexpr const char* optimizer_file = "optimizer.safetensors";

/// Fields of TrainingPosition under their names in the file.
template <class Position, class F>
void visit_position(Position& position, F&& f) {
  f("step", position.state.step);
  f("skipped", position.state.skipped);
  f("targets", position.state.targets);
  f("epoch", position.data.epoch);
  f("example", position.data.example);
}

template <class Number>
[[nodiscard]] Number number_in(const std::filesystem::path& file, const std::string& key,
                               std::string_view text) {
  Number number{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || stop != text.data() + text.size() || number < 0) {
    throw FormatError(file, concat("metadata ", in_quotes(key)),
                      concat("expected a whole number of at least 0, found ", in_quotes(text)));
  }
  return number;
}

[[nodiscard]] inline const std::string& text_in(const SafetensorsFile& file,
                                                const std::string& key) {
  const auto at = file.metadata().find(key);
  if (at == file.metadata().end()) {
    throw FormatError(file.path(), concat("metadata ", in_quotes(key), ": expected, not there"));
  }
  return at->second;
}

/// What a tensor of a training state must be, in the file and here.
template <class T>
[[nodiscard]] Matrix<T> matrix_in(const SafetensorsFile& file, const std::string& name, Index rows,
                                  Index cols) {
  const StoredTensor tensor = file.tensor(name);
  if (tensor.dtype() != dtype_of<T>()) {
    throw FormatError(
        file.path(), concat("tensor ", in_quotes(name)),
        concat("expected ", name_of(dtype_of<T>()), ", found ", name_of(tensor.dtype())));
  }
  tensor.require_shape({rows, cols});
  Matrix<T> matrix(rows, cols);
  tensor.copy_to(std::span<T>(matrix.data(), static_cast<std::size_t>(matrix.size())));
  return matrix;
}

/// Tensors to be written, which live elsewhere.
template <class T>
class MatrixList {
 public:
  void add(std::string name, const Matrix<T>& matrix) {
    infos_.push_back({name, dtype_of<T>(), {matrix.rows(), matrix.cols()}});
    matrices_.emplace(std::move(name), &matrix);
  }
  void write(const std::filesystem::path& path, const TextMap& metadata) const {
    SafetensorsWriter writer(path, infos_, metadata);
    for (const TensorInfo& info : writer.tensors()) {
      const Matrix<T>& matrix = *matrices_.at(info.name);
      writer.write(info.name,
                   std::span<const T>(matrix.data(), static_cast<std::size_t>(matrix.size())));
    }
    writer.commit();
  }

 private:
  std::vector<TensorInfo> infos_;
  std::map<std::string, const Matrix<T>*> matrices_;
};

template <class O>
[[nodiscard]] std::string optimizer_kind() {
  std::string kind;
  for (const std::string_view moment : O::moment_names) {
    kind += (kind.empty() ? "" : ", ") + std::string(moment);
  }
  return kind;
}

}  // namespace detail

/// Writes parameters, optimizer and position into a checkpoint that is being written. `description`
/// says what the run is of, and must be the same when it goes on: operator and type of adapters,
/// size of the data, whatever a number of a shape does not show. What the optimizer remembers of
/// parameters that the model no longer has is left out. Throws ArgumentError as
/// SafetensorsWriter does, FileError where the system refuses.
///
///     mora::CheckpointWriter writer("run", position.state.step);
///     mora::save_training_state(writer, model, optimizer, position, {{"adapter", "rotation"}});
///     writer.commit();
template <Module M, UpdateRule Rule>
void save_training_state(const CheckpointWriter& writer, const M& model,
                         const Optimizer<Rule>& optimizer, const TrainingPosition& position,
                         const TextMap& description = {}) {
  using T = typename Rule::Scalar;
  TextMap metadata;
  detail::visit_position(position, [&](const std::string& name, auto number) {
    metadata["position." + name] = std::to_string(number);
  });
  for (const auto& [name, number] : position.counters) {
    metadata["counter." + name] = std::to_string(number);
  }
  for (const auto& [key, text] : description) metadata["description." + key] = text;
  detail::MatrixList<T> parameters;
  std::set<std::string, std::less<>> names;
  model.visit_parameters([&](std::string_view name, const Parameter<T>& parameter) {
    parameters.add(std::string(name), parameter.value);
    names.emplace(name);
  });
  parameters.write(writer.path(detail::parameters_file), metadata);

  detail::MatrixList<T> moments;
  TextMap steps = {{"moments", detail::optimizer_kind<Optimizer<Rule>>()}};
  optimizer.visit_state([&](std::string_view name, const auto& state) {
    if (!names.contains(name)) return;  // of an adapter that was replaced
    steps["steps." + std::string(name)] = std::to_string(state.steps);
    for (std::size_t i = 0; i < state.moments.size(); ++i) {
      moments.add(detail::concat(Optimizer<Rule>::moment_names[i], ".", name), state.moments[i]);
    }
  });
  moments.write(writer.path(detail::optimizer_file), steps);
}

/// Reads what save_training_state has written into a model and an optimizer of the same kind, and
/// returns the position; the caller seeks its batches there and begins at `position.state`.
/// Gradients stay. Throws FormatError, naming file, tensor or key and both values, for another
/// scalar type, shape, set of parameters, optimizer or description, and for numbers that are not
/// finite; nothing has changed then. Verify the checkpoint first (find_checkpoint does).
template <Module M, UpdateRule Rule>
[[nodiscard]] TrainingPosition load_training_state(const std::filesystem::path& checkpoint,
                                                   M& model, Optimizer<Rule>& optimizer,
                                                   const TextMap& description = {}) {
  using T = typename Rule::Scalar;
  const SafetensorsFile parameters(checkpoint / detail::parameters_file, FileAccess::copied);
  const SafetensorsFile moments(checkpoint / detail::optimizer_file, FileAccess::copied);

  TrainingPosition position;
  detail::visit_position(position, [&](const std::string& name, auto& number) {
    const std::string key = "position." + name;
    number = detail::number_in<std::decay_t<decltype(number)>>(parameters.path(), key,
                                                               detail::text_in(parameters, key));
  });
  TextMap found;
  for (const auto& [key, text] : parameters.metadata()) {
    constexpr std::string_view counter = "counter.";
    constexpr std::string_view described = "description.";
    if (key.starts_with(counter)) {
      position.counters[key.substr(counter.size())] =
          detail::number_in<std::uint64_t>(parameters.path(), key, text);
    } else if (key.starts_with(described)) {
      found[key.substr(described.size())] = text;
    }
  }
  for (const TextMap* keys : {&description, &std::as_const(found)}) {
    for (const auto& entry : *keys) {
      const std::string& key = entry.first;
      const auto say = [&key](const TextMap& map) {
        const auto at = map.find(key);
        return at == map.end() ? std::string("nothing") : detail::in_quotes(at->second);
      };
      if (say(description) == say(found)) continue;
      throw FormatError(parameters.path(), detail::concat("description ", detail::in_quotes(key)),
                        detail::concat("expected ", say(description), ", found ", say(found),
                                       "; a run goes on with its own settings alone"));
    }
  }

  std::map<std::string, Matrix<T>, std::less<>> values;
  std::set<std::string> names;
  std::as_const(model).visit_parameters([&](std::string_view name, const Parameter<T>& p) {
    std::string key(name);
    Matrix<T> value = detail::matrix_in<T>(parameters, key, p.value.rows(), p.value.cols());
    if (!detail::all_finite(value)) {
      throw FormatError(parameters.path(), detail::concat("tensor ", detail::in_quotes(key)),
                        "has numbers that are not finite");
    }
    names.insert(key);
    values.emplace(std::move(key), std::move(value));
  });
  detail::require_no_more(parameters, names);

  using O = Optimizer<Rule>;
  if (const std::string kind = detail::text_in(moments, "moments");
      kind != detail::optimizer_kind<O>()) {
    throw FormatError(moments.path(), "metadata 'moments'",
                      detail::concat("expected ", detail::in_quotes(detail::optimizer_kind<O>()),
                                     ", found ", detail::in_quotes(kind)));
  }
  O loaded = optimizer;
  loaded.reset_state();
  std::set<std::string> known;
  for (const auto& [key, text] : moments.metadata()) {
    constexpr std::string_view prefix = "steps.";
    if (!key.starts_with(prefix)) continue;
    const std::string name = key.substr(prefix.size());
    const auto value = values.find(name);
    if (value == values.end()) {
      throw FormatError(moments.path(), detail::concat("metadata ", detail::in_quotes(key)),
                        "is of no parameter of this model");
    }
    typename O::State state;
    state.steps = detail::number_in<std::int64_t>(moments.path(), key, text);
    for (std::size_t i = 0; i < state.moments.size(); ++i) {
      std::string moment = detail::concat(O::moment_names[i], ".", name);
      state.moments[i] =
          detail::matrix_in<T>(moments, moment, value->second.rows(), value->second.cols());
      known.insert(std::move(moment));
    }
    try {
      loaded.set_state(name, std::move(state));
    } catch (const Error& error) {
      throw FormatError(moments.path(), error.what());
    }
  }
  detail::require_no_more(moments, known);

  // From here on nothing fails.
  model.visit_parameters(
      [&](std::string_view name, Parameter<T>& p) { p.value.swap(values.find(name)->second); });
  optimizer = std::move(loaded);
  return position;
}

}  // namespace mora::inline MORA_ABI
