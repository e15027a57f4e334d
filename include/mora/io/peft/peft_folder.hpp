// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "mora/adapters/lokr.hpp"
#include "mora/adapters/named_adapter.hpp"
#include "mora/io/peft/adapter_tensors.hpp"
#include "mora/io/peft/config_file.hpp"
#include "mora/io/peft/layer_shape.hpp"
#include "mora/io/peft/make_adapter.hpp"
#include "mora/io/peft/module_update.hpp"

namespace mora::inline MORA_ABI {

struct PeftFolderSettings {
  FileAccess access = FileAccess::mapped;
  /// A MoRA folder of the paper's dialect with one matrix a module, lora_A, that is used as x A: so
  /// M is its transpose. PaddleNLP stores its MoRA so, which is rotation: mora_type is 6, or
  /// missing.
  bool transposed = false;
};

/// A PEFT adapter folder that is read: adapter_config.json and adapter_model.safetensors, of LoRA,
/// DoRA, HiRA, LoKr, MiSS or MoRA.
///
///     const mora::PeftFolder folder("my-adapter");
///     mora::attach_peft(model, "mine", folder);   // io/peft/attach.hpp
///
/// Which modules have adapters, and which are stored whole (modules_to_save), is what its tensors
/// say. Opening it reads the config and the header, and checks that they agree; no other adapter
/// number is read than MoRA's two copies of M in the paper's dialect, which must be equal.
class PeftFolder {
 public:
  using Settings = PeftFolderSettings;

  /// Throws as read_peft_config and SafetensorsFile do; FormatError naming the tensor for one that
  /// belongs to nothing (a method that is not supported, a module that the config does not name),
  /// for half a pair, ranks that are not the config's, shapes that no adapter has, and without any
  /// adapter.
  explicit PeftFolder(const std::filesystem::path& folder, const Settings& settings = {})
      : config_(read_config(folder, settings)),
        transposed_(settings.transposed),
        file_(open(folder, settings.access)),
        modules_(detail::PeftTensorRules(config_, transposed_).sort(file_)) {
    warn_of_missing();
  }

  [[nodiscard]] const PeftConfig& config() const { return config_; }
  [[nodiscard]] const SafetensorsFile& tensors() const { return file_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return config_.warnings; }
  /// The names of the modules that have an adapter or are stored whole, sorted.
  [[nodiscard]] std::vector<std::string> modules() const {
    std::vector<std::string> names;
    for (const auto& [name, module] : modules_) names.push_back(name);
    return names;
  }

  /// All adapters, for a model with these modules; what is stored whole is a FullAdapter. The
  /// config's dropout is with those that can have it: not with DoRA and HiRA, which is a warning.
  /// Throws FormatError naming the tensor, with both shapes, for a module that the model does not
  /// have or that has another shape, and where one of two tied modules is stored whole without the
  /// other.
  template <Real T>
  [[nodiscard]] std::vector<NamedAdapter<T>> adapters(std::span<const LayerShape> layers) const {
    std::vector<NamedAdapter<T>> all;
    for (const auto& [layer, module] : fitting(layers)) {
      AnyAdapter<T> adapter = maker().make<T>(*layer, *module);
      const double dropout = adapter.additive() ? config_.dropout : 0.0;
      all.push_back({layer->module, std::move(adapter), dropout});
    }
    return all;
  }

  /// The same for merging, of which no more than one module has to be in memory at a time: its
  /// adapter is made when it is asked for, and no whole weight ever. Valid while the folder lives
  /// and stays in its place. Throws as adapters().
  template <Real T>
  [[nodiscard]] std::vector<ModuleUpdate<T>> updates(std::span<const LayerShape> layers) const {
    std::vector<ModuleUpdate<T>> all;
    for (const auto& [layer, module] : fitting(layers)) {
      ModuleUpdate<T>& update =
          all.emplace_back(ModuleUpdate<T>{.module = layer->module,
                                           .out_features = layer->out_features,
                                           .in_features = layer->in_features});
      if (module->saved()) {
        update.weight = *(*module)[detail::PeftRole::weight];
        update.bias = (*module)[detail::PeftRole::bias].has_value();
        continue;
      }
      update.adapter = [this, shape = *layer, tensors = module] {
        auto adapter = std::make_shared<const AnyAdapter<T>>(maker().make<T>(shape, *tensors));
        tensors->release_pages();
        return adapter;
      };
    }
    return all;
  }

 private:
  [[nodiscard]] detail::PeftAdapterMaker maker() const { return {config_, transposed_}; }

  /// The modules that adapters are made of, sorted by name, and checked.
  [[nodiscard]] std::vector<std::pair<const LayerShape*, const detail::PeftModule*>> fitting(
      std::span<const LayerShape> layers) const {
    std::map<std::string_view, const LayerShape*> shapes;
    std::set<std::string_view> tied;
    for (const LayerShape& layer : layers) {
      shapes.emplace(layer.module, &layer);
      if (!layer.tied_to.empty()) tied.insert({layer.module, layer.tied_to});
    }
    detail::WrongTensors wrong;
    for (const auto& [name, module] : modules_) {
      if (!shapes.contains(name)) {
        wrong.add(module.any(), "its module ", detail::in_quotes(name), " is none of the model's ",
                  layers.size(), ": ", first_names(layers));
      } else if (module.saved() && !tied.contains(name)) {
        detail::require_saved(config_, name, module.any(), wrong);
      }
    }
    wrong.refuse_any();
    for (const auto& [name, module] : modules_) require_fits(*shapes.at(name), module);
    for (const LayerShape& layer : layers) require_tied(layer);
    std::vector<std::pair<const LayerShape*, const detail::PeftModule*>> all;
    for (const auto& [name, module] : modules_) {
      const LayerShape* const layer = shapes.at(name);
      if (layer->tied_to.empty()) all.emplace_back(layer, &module);
    }
    return all;
  }

  [[nodiscard]] static PeftConfig read_config(const std::filesystem::path& folder,
                                              const Settings& settings) {
    const std::filesystem::path path = folder / "adapter_config.json";
    PeftConfig config = read_peft_config(path);
    const bool paper = config.dialect == PeftDialect::paper;
    const bool typed = paper && JsonObject::read(path).has("mora_type");
    if (!settings.transposed) {
      if (paper && !typed) {
        config.warnings.push_back(detail::concat(
            path.string(), ": use_mora without mora_type is read as type 1, the paper's default"));
      }
      return config;
    }
    if (!paper) {
      throw FormatError(path, "key 'use_mora'", "expected true for a transposed matrix");
    }
    // Without mora_type it reads as the paper's default.
    if (!typed) config.op = Rotation{};
    if (!std::holds_alternative<Rotation>(config.op)) {
      throw FormatError(path, "key 'mora_type'",
                        detail::concat("expected 6 for a transposed matrix, found ",
                                       detail::mora_type_of(config.op).value_or(0)));
    }
    return config;
  }

  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& folder,
                                            FileAccess access) {
    const std::filesystem::path file = folder / "adapter_model.safetensors";
    std::error_code error;
    if (!std::filesystem::exists(file, error) &&
        std::filesystem::exists(folder / "adapter_model.bin", error)) {
      throw FileError(file,
                      "expected this file, found adapter_model.bin alone, a pickle, which is "
                      "not read as it may run any program");
    }
    return SafetensorsFile(file, access);
  }

  /// Keys that name modules without tensors, and frozen weights beside adapters (PEFT stores a
  /// head's where it is adapted): they change nothing.
  void warn_of_missing() {
    for (const auto& [name, module] : modules_) {
      if (!module.has_frozen()) continue;
      config_.warnings.push_back(
          detail::concat(file_.path().string(), ": the frozen weight of ", detail::in_quotes(name),
                         " is stored too, and left out: the model's own is taken"));
    }
    const auto warn = [&](const char* key, const auto& names, const auto& fits) {
      for (const std::string& each : names) {
        const bool any = std::any_of(modules_.begin(), modules_.end(), [&](const auto& module) {
          return fits(each, module.first, module.second.saved());
        });
        if (any) continue;
        config_.warnings.push_back(detail::concat(file_.path().string(), ": ", key, " names ",
                                                  detail::in_quotes(each),
                                                  ", for which there are no tensors"));
      }
    };
    warn("target_modules", config_.target_modules,
         [](const auto& key, const auto& module, bool saved) {
           return !saved && detail::names_module(key, module);
         });
    warn("modules_to_save", config_.modules_to_save,
         [](const auto& key, const auto& module, bool saved) {
           return saved && PeftConfig{.modules_to_save = {key}}.saves(module);
         });
  }

  [[nodiscard]] static std::string first_names(std::span<const LayerShape> layers) {
    constexpr std::size_t most = 5;
    std::string names;
    for (const LayerShape& layer : layers.first(std::min(most, layers.size()))) {
      names += detail::concat(names.empty() ? "" : ", ", layer.module);
    }
    return names + (layers.size() > most ? ", ..." : "");
  }

  void require_fits(const LayerShape& layer, const detail::PeftModule& module) const {
    const Index in = layer.in_features;
    const Index out = layer.out_features;
    const auto require = [&](const StoredTensor& tensor, std::initializer_list<Index> expected) {
      if (std::ranges::equal(expected, tensor.shape())) return;
      detail::fail_tensor(tensor, "expected shape ", detail::shape_text(expected), " for ", in,
                          " inputs and ", out, " outputs, found ",
                          detail::shape_text(tensor.shape()), ": an adapter of another model?");
    };
    if (module.saved()) {
      const StoredTensor& weight = *module[detail::PeftRole::weight];
      if (weight.shape().size() == 1 && out == 1) {
        require(weight, {in});
      } else {
        require(weight, {out, in});
      }
      const auto& bias = module[detail::PeftRole::bias];
      if (bias && !layer.bias) detail::fail_tensor(*bias, "its module has no bias in this model");
      if (layer.bias && !bias) {
        detail::fail_tensor(weight, "expected a bias of ", out, " numbers beside it, found none");
      }
      if (bias) require(*bias, {out});
      return;
    }
    if (!layer.tied_to.empty()) {
      detail::fail_tensor(module.any(), "its module is tied to ", layer.tied_to,
                          " in this model, and has no adapter of its own");
    }
    if (!layer.linear) detail::fail_tensor(module.any(), "its module is no linear layer");
    const Index rank = config_.rank_of(layer.module);
    switch (config_.dialect) {
      case PeftDialect::lora:
        require(*module[detail::PeftRole::a], {rank, in});
        require(*module[detail::PeftRole::b], {out, rank});
        if (config_.dora) require(*module[detail::PeftRole::magnitude], {out});
        break;
      case PeftDialect::hira: {
        const StoredTensor& factor = *module[detail::PeftRole::hira_a];
        require(factor, {detail::rows_of(factor), in});
        require(*module[detail::PeftRole::hira_b], {out, detail::rows_of(factor)});
        break;
      }
      case PeftDialect::lokr: {
        const KroneckerShape shape = lokr_shape(in, out, config_.lokr_of(layer.module));
        const auto require_factor = [&](const detail::LokrRoles& roles, bool thin, Index rows,
                                        Index cols) {
          const auto& whole = module[roles.whole];
          if (!thin && whole) return require(*whole, {rows, cols});
          if (thin && !whole) {
            require(*module[roles.a], {rows, shape.rank});
            return require(*module[roles.b], {shape.rank, cols});
          }
          detail::fail_tensor(whole ? *whole : *module[roles.a], "expected ",
                              thin ? "two thin halves of a factor [" : "a full factor [", rows,
                              ", ", cols, "] for ", in, " inputs, ", out, " outputs and a rank of ",
                              shape.rank, ", found ", thin ? "a full one" : "halves",
                              ": an adapter of another model?");
        };
        require_factor(detail::lokr_w1_roles, shape.thin1, shape.rows1, shape.cols1);
        require_factor(detail::lokr_w2_roles, shape.thin2, shape.rows2, shape.cols2);
        break;
      }
      case PeftDialect::miss: {
        const StoredTensor& block = *module[detail::PeftRole::miss];
        require(block, {rank, out});
        if (rank > in) {
          detail::fail_tensor(block, "expected a rank of at most ", in, ", the inputs, found ",
                              rank);
        }
        break;
      }
      case PeftDialect::paper:
      case PeftDialect::mora: require_side(layer, detail::matrix_of(config_, module)); break;
    }
  }

  void require_side(const LayerShape& layer, const StoredTensor& matrix) const {
    const Index rank = config_.rank_of(layer.module);
    Index side = 0;
    try {
      side = detail::side_of(config_.op, layer.in_features, layer.out_features, rank,
                             config_.rounding);
    } catch (const Error& error) {
      detail::fail_tensor(matrix, error.what());
    }
    if (detail::rows_of(matrix) == side) return;
    detail::fail_tensor(matrix, "expected a side of ", side, ", from sqrt((", layer.in_features,
                        " + ", layer.out_features, ") * ", rank, ") for ", name_of(config_.op),
                        ", found ", detail::rows_of(matrix), ": an adapter of another model?");
  }

  /// Two tied modules that are stored whole are one; apart they cannot be.
  void require_tied(const LayerShape& layer) const {
    if (layer.tied_to.empty()) return;
    const auto mine = modules_.find(layer.module);
    const auto other = modules_.find(layer.tied_to);
    if (mine == modules_.end() && other == modules_.end()) return;
    if (mine == modules_.end() || other == modules_.end()) {
      const auto& alone = mine == modules_.end() ? other : mine;
      detail::fail_tensor(alone->second.any(), "expected ",
                          detail::in_quotes(mine == modules_.end() ? layer.module : layer.tied_to),
                          " stored as well, to which its module is tied in this model");
    }
    const StoredTensor& weight = *mine->second[detail::PeftRole::weight];
    const StoredTensor& twin = *other->second[detail::PeftRole::weight];
    const bool equal = weight.equals(twin);
    weight.release_pages();
    twin.release_pages();
    if (equal) return;
    detail::fail_tensor(weight, "expected the numbers of ", detail::in_quotes(twin.name()),
                        ", to which its module is tied in this model, found others");
  }

  PeftConfig config_;
  bool transposed_;
  SafetensorsFile file_;
  detail::PeftModules modules_;
};

}  // namespace mora::inline MORA_ABI
