// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/peft/config.hpp"
#include "mora/io/peft/tensor_names.hpp"
#include "mora/io/safetensors.hpp"

namespace mora::inline MORA_ABI::detail {

template <class... Parts>
[[noreturn]] void fail_tensor(const StoredTensor& tensor, const Parts&... parts) {
  throw FormatError(tensor.file(), concat("tensor ", in_quotes(tensor.name())), concat(parts...));
}

/// Tensors that must not be there: all are looked for, so that one message says how many they are.
class WrongTensors {
 public:
  template <class... Reason>
  void add(const StoredTensor& tensor, const Reason&... reason) {
    if (!first_) {
      first_.emplace(tensor);
      reason_ = concat(reason...);
    } else if (++more_ <= most_named) {
      names_ += concat(more_ == 1 ? "" : ", ", in_quotes(tensor.name()));
    }
  }
  /// Throws FormatError naming the first with its reason, and some of the others.
  void refuse_any() const {
    if (!first_) return;
    if (more_ == 0) fail_tensor(*first_, reason_);
    fail_tensor(*first_, reason_, "; ", more_, more_ == 1 ? " more does" : " more do",
                " not belong here: ", names_, more_ > most_named ? ", ..." : "");
  }

 private:
  static constexpr Index most_named = 5;

  std::optional<StoredTensor> first_;
  std::string reason_;
  std::string names_;
  Index more_ = 0;
};

/// The tensors of one module.
class PeftModule {
 public:
  [[nodiscard]] const std::optional<StoredTensor>& operator[](PeftRole role) const {
    return tensors_[static_cast<std::size_t>(role)];
  }
  void put(PeftRole role, const StoredTensor& tensor) {
    auto& place = tensors_[static_cast<std::size_t>(role)];
    if (place) fail_tensor(tensor, "is ", in_quotes(place->name()), " a second time");
    place.emplace(tensor);
  }
  /// The weight below an adapter, which PEFT stores beside that of a head; it is not read.
  [[nodiscard]] bool has_frozen() const { return (*this)[PeftRole::frozen].has_value(); }
  /// The module itself is stored, not an adapter for it.
  [[nodiscard]] bool saved() const { return (*this)[PeftRole::weight] || (*this)[PeftRole::bias]; }
  /// Of all of them: see StoredTensor.
  void release_pages() const {
    for (const auto& tensor : tensors_) {
      if (tensor) tensor->release_pages();
    }
  }
  /// Any of them, for messages.
  [[nodiscard]] const StoredTensor& any() const {
    return **std::find_if(tensors_.begin(), tensors_.end(), [](const auto& t) { return t; });
  }

 private:
  std::array<std::optional<StoredTensor>, peft_roles> tensors_;
};

using PeftModules = std::map<std::string, PeftModule, std::less<>>;

/// Names of a config are compared with all modules, and with what these are in: more comparisons
/// would take minutes.
inline constexpr Index most_name_comparisons = 4'000'000'000;

/// Of a tensor's name, those that dots part.
[[nodiscard]] inline Index parts_of_name(std::string_view name) {
  return 1 + std::ranges::count(name, '.');
}

/// Throws FormatError, with both numbers, for a config and tensors whose names have so many parts
/// that together they take more.
inline void require_few_comparisons(const PeftConfig& config, Index parts,
                                    const std::filesystem::path& path) {
  Index keys = 0;
  const auto count = [&](const auto&... lists) { keys += (Index{0} + ... + std::ssize(lists)); };
  count(config.rank_pattern, config.alpha_pattern, config.scale_pattern, config.target_modules,
        config.exclude_modules, config.layers_to_transform, config.layers_pattern,
        config.modules_to_save);
  if (parts == 0 || keys <= most_name_comparisons / parts) return;
  throw FormatError(path, concat("expected at most ", most_name_comparisons / parts,
                                 " names and patterns in adapter_config.json for the ", parts,
                                 " parts of these tensors' names, found ", keys));
}

/// The same of expressions, whose states are gone through for all characters of a name.
inline void require_few_steps(const PeftConfig& config, Index characters,
                              const std::filesystem::path& path) {
  Index states = 0;
  for (const auto* pattern : {&config.target_pattern, &config.exclude_pattern}) {
    if (*pattern) states += (*pattern)->states();
  }
  if (states == 0 || characters <= most_name_comparisons / states) return;
  throw FormatError(path,
                    concat("expected at most ", most_name_comparisons / states,
                           " characters of tensors' names for the ", states,
                           " states of expressions in adapter_config.json, found ", characters));
}

[[nodiscard]] inline Index rows_of(const StoredTensor& matrix) { return matrix.shape()[0]; }
[[nodiscard]] inline Index cols_of(const StoredTensor& matrix) { return matrix.shape()[1]; }

/// A module's tensors are wrong unless the config says that it is stored whole.
inline void require_saved(const PeftConfig& config, std::string_view module,
                          const StoredTensor& tensor, WrongTensors& wrong) {
  if (config.saves(module)) return;
  wrong.add(tensor, "is no part of an adapter, and its module ", in_quotes(module),
            " is none of modules_to_save; expected names such as ",
            in_quotes(peft_name("<module>", PeftRole::a)));
}

/// How the tensors of one folder have to be.
class PeftTensorRules {
 public:
  /// `config` lives as long. `transposed`: see PeftFolderSettings.
  PeftTensorRules(const PeftConfig& config, bool transposed)
      : config_(config), transposed_(transposed) {}

  /// All tensors by module, checked as far as that is possible without the model. Throws
  /// FormatError naming the tensor.
  [[nodiscard]] PeftModules sort(const SafetensorsFile& file) const {
    Index parts = 0;
    Index characters = 0;
    for (const StoredTensor& tensor : file.tensors()) {
      parts += parts_of_name(tensor.name());
      characters += std::ssize(tensor.name());
    }
    require_few_comparisons(config_, parts, file.path());
    require_few_steps(config_, characters, file.path());
    PeftModules modules;
    WrongTensors wrong;
    for (const StoredTensor& tensor : file.tensors()) put(tensor, modules, wrong);
    for (const auto& [name, module] : modules) find_strangers(module, wrong);
    wrong.refuse_any();
    for (const auto& [name, module] : modules) require_complete(name, module);
    for (const auto& [name, module] : modules) require_targeted(name, module, wrong);
    wrong.refuse_any();
    bool any = false;
    for (const auto& [name, module] : modules) {
      if (module.saved()) continue;
      check_shapes(name, module);
      any = true;
    }
    if (!any) {
      throw FormatError(file.path(), concat("expected an adapter, found none in ", file.size(),
                                            " tensors; expected names such as ",
                                            in_quotes(peft_name("<module>", PeftRole::a))));
    }
    return modules;
  }

 private:
  void put(const StoredTensor& tensor, PeftModules& modules, WrongTensors& wrong) const {
    if (const auto stranger = peft_stranger(tensor.name()); !stranger.empty()) {
      return wrong.add(tensor, "is a part of ", stranger, ", which is not supported");
    }
    const auto name = parse_peft_name(tensor.name());
    if (!name) {
      return wrong.add(tensor, "is no part of an adapter; expected names such as ",
                       in_quotes(peft_name("<module>", PeftRole::a)));
    }
    tensor.require_float();
    const auto& shape = tensor.shape();
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) {
      fail_tensor(tensor, "expected numbers, found shape ", shape_text(shape));
    }
    const bool whole = name->role == PeftRole::weight || name->role == PeftRole::bias;
    // Of tied modules PEFT may name one and store both.
    if (whole && !config_.ensure_weight_tying) {
      require_saved(config_, name->module, tensor, wrong);
    }
    modules[name->module].put(name->role, tensor);
  }

  /// Which tensors a module's adapter consists of.
  [[nodiscard]] std::vector<PeftRole> wanted(const PeftModule& module) const {
    switch (config_.dialect) {
      case PeftDialect::mora: return {PeftRole::m};
      case PeftDialect::hira: return {PeftRole::hira_a, PeftRole::hira_b};
      case PeftDialect::lokr: return wanted_of_lokr(module);
      case PeftDialect::miss: return {PeftRole::miss};
      case PeftDialect::lora:
      case PeftDialect::paper: break;
    }
    if (transposed_) return {PeftRole::a};
    if (config_.dora) return {PeftRole::a, PeftRole::b, PeftRole::magnitude};
    return {PeftRole::a, PeftRole::b};
  }

  /// Which factors are thin follows from the layer's size: here either form will do.
  [[nodiscard]] static std::vector<PeftRole> wanted_of_lokr(const PeftModule& module) {
    std::vector<PeftRole> roles;
    for (const LokrRoles& factor : {lokr_w1_roles, lokr_w2_roles}) {
      if (!module[factor.whole] && (module[factor.a] || module[factor.b])) {
        roles.push_back(factor.a);
        roles.push_back(factor.b);
      } else {
        roles.push_back(factor.whole);
      }
    }
    return roles;
  }

  /// Parts of other adapters than the config's.
  void find_strangers(const PeftModule& module, WrongTensors& wrong) const {
    const std::vector<PeftRole> roles = wanted(module);
    for (const PeftRole role : peft_adapter_roles) {
      const auto& tensor = module[role];
      if (!tensor) continue;
      if (module.saved()) {
        wrong.add(*tensor, "is beside a whole copy of its module");
      } else if (std::find(roles.begin(), roles.end(), role) == roles.end()) {
        wrong.add(*tensor, "is no part of an adapter of ", config_.method(),
                  transposed_ ? " with one transposed matrix" : "");
      }
    }
    const auto& frozen = module[PeftRole::frozen];
    if (frozen && !has_adapter(module)) {
      wrong.add(*frozen, "is the weight below an adapter, which is not here");
    }
  }

  [[nodiscard]] static bool has_adapter(const PeftModule& module) {
    return std::ranges::any_of(peft_adapter_roles,
                               [&](PeftRole role) { return module[role].has_value(); });
  }

  void require_complete(const std::string& name, const PeftModule& module) const {
    if (module.saved()) return check_saved(name, module);
    for (const PeftRole role : wanted(module)) {
      const auto& tensor = module[role];
      if (!tensor) {
        fail_tensor(module.any(), "expected ", in_quotes(peft_name(name, role)),
                    " beside it, found none");
      }
      const bool vector = role == PeftRole::magnitude;
      if (tensor->shape().size() != (vector ? 1u : 2u)) {
        fail_tensor(*tensor, "expected a ", vector ? "vector" : "matrix", ", found shape ",
                    shape_text(tensor->shape()));
      }
    }
  }

  void require_targeted(const std::string& name, const PeftModule& module,
                        WrongTensors& wrong) const {
    if (module.saved() || config_.targets(name)) return;
    wrong.add(module.any(), "its module ", in_quotes(name),
              " is none of those that target_modules names");
  }

  void check_shapes(const std::string& name, const PeftModule& module) const {
    switch (config_.dialect) {
      case PeftDialect::lora:
        check_factors(config_.rank_of(name), *module[PeftRole::a], *module[PeftRole::b]);
        break;
      case PeftDialect::hira: {
        // PEFT 0.21 stores one rank, whatever rank_pattern says.
        const bool one_rank = rows_of(*module[PeftRole::hira_a]) == config_.rank;
        check_factors(one_rank ? config_.rank : config_.rank_of(name), *module[PeftRole::hira_a],
                      *module[PeftRole::hira_b]);
        break;
      }
      case PeftDialect::lokr:
        for (const LokrRoles& factor : {lokr_w1_roles, lokr_w2_roles}) {
          if (module[factor.whole]) continue;
          check_factors(config_.rank_of(name), *module[factor.b], *module[factor.a]);
        }
        break;
      case PeftDialect::miss: check_rows(config_.rank_of(name), *module[PeftRole::miss]); break;
      case PeftDialect::paper:
      case PeftDialect::mora: check_mora(module); break;
    }
  }

  static void check_rows(Index rank, const StoredTensor& tensor) {
    if (rows_of(tensor) == rank) return;
    fail_tensor(tensor, "expected ", rank,
                " rows, which is the rank in adapter_config.json, found ", rows_of(tensor));
  }
  static void check_factors(Index rank, const StoredTensor& a, const StoredTensor& b) {
    check_rows(rank, a);
    if (cols_of(b) != rank) {
      fail_tensor(b, "expected ", rank,
                  " columns, which is the rank in adapter_config.json, found ", cols_of(b));
    }
  }

  void check_mora(const PeftModule& module) const {
    for (const PeftRole role : wanted(module)) {
      const StoredTensor& matrix = *module[role];
      if (rows_of(matrix) != cols_of(matrix)) {
        fail_tensor(matrix, "expected MoRA's square matrix, found shape ",
                    shape_text(matrix.shape()));
      }
    }
    if (config_.dialect != PeftDialect::paper || transposed_) return;
    const StoredTensor& a = *module[PeftRole::a];
    const StoredTensor& b = *module[PeftRole::b];
    b.require_shape(a.shape());
    const bool equal = b.equals(a);
    a.release_pages();
    b.release_pages();
    if (!equal) {
      fail_tensor(b, "expected the numbers of ", in_quotes(a.name()),
                  ", as both are MoRA's one matrix, found others");
    }
  }

  void check_saved(const std::string& name, const PeftModule& module) const {
    const auto& weight = module[PeftRole::weight];
    if (!weight) {
      fail_tensor(module.any(), "expected ", in_quotes(peft_name(name, PeftRole::weight)),
                  " beside it, found none");
    }
    if (weight->shape().size() != 1 && weight->shape().size() != 2) {
      fail_tensor(*weight, "expected a matrix or a vector, found shape ",
                  shape_text(weight->shape()));
    }
  }

  const PeftConfig& config_;
  bool transposed_;
};

}  // namespace mora::inline MORA_ABI::detail
