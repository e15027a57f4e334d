// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "mora/adapters/named_adapter.hpp"
#include "mora/io/atomic_file.hpp"
#include "mora/io/peft/adapter_tensors.hpp"
#include "mora/io/peft/config_file.hpp"
#include "mora/io/peft/config_text.hpp"
#include "mora/io/peft/folder_config.hpp"
#include "mora/io/peft/peft_part.hpp"
#include "mora/io/peft/tensor_names.hpp"
#include "mora/io/safetensors_writer.hpp"
#include "mora/models/llama/llama.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// The numbers of M times its scale. Throws NumericError where one becomes infinite.
template <Real T>
[[nodiscard]] Matrix<T> scaled(const PeftPart<T>& part) {
  const auto& tensor = part.tensors.front();
  const ConstMap<T> m(tensor.data, tensor.shape[0], tensor.shape[1],
                      Eigen::OuterStride<>(tensor.shape[1]));
  Matrix<T> result = m * static_cast<T>(part.mora->scale);
  for (Index i = 0; i < result.size(); ++i) {
    if (std::isfinite(tensor.data[i]) && !std::isfinite(result.data()[i])) {
      throw NumericError(concat(part.module, ": number ", i, " of M, ", tensor.data[i],
                                ", times the scale ", part.mora->scale, " is too large"));
    }
  }
  return result;
}

/// Throws ArgumentError, naming the module, where this library's own reader would refuse a config
/// or take it for another.
template <Real T>
void require_readable(const std::vector<PeftPart<T>>& parts, const std::string& text,
                      const std::filesystem::path& path) {
  const PeftConfig config = [&] {
    try {
      PeftConfig read = parse_peft_config(text, path);
      Index names = 0;
      for (const PeftPart<T>& part : parts) {
        for (const auto& tensor : part.tensors) {
          names += parts_of_name(peft_name(part.module, tensor.role));
        }
      }
      require_few_comparisons(read, names, path);
      return read;
    } catch (const FormatError& error) {
      throw ArgumentError(concat("a folder cannot say this: ", error.what()));
    }
  }();
  for (const PeftPart<T>& part : parts) {
    const auto fail = [&](const auto&... what) {
      throw ArgumentError(concat(in_quotes(part.module), ": ", what...));
    };
    for (const auto& tensor : part.tensors) {
      const std::string name = peft_name(part.module, tensor.role);
      const auto again = parse_peft_name(name);
      if (!again || again->module != part.module || again->role != tensor.role ||
          !peft_stranger(name).empty()) {
        fail("a tensor called ", in_quotes(name), " would be read as another");
      }
    }
    // Ranks and scales are its own: of patterns the longest that fits stands first.
    if (!part.saved() && !config.targets(part.module)) {
      fail("would not be read as an adapter, as its name ends in that of one stored whole, ",
           "or is in one: save them apart");
    }
  }
}

template <Real T>
void write_peft(const std::filesystem::path& folder, std::vector<PeftPart<T>> parts,
                const PeftConfig& config, Dtype dtype) {
  const std::string text = peft_config_json(config);
  const std::filesystem::path config_path = folder / "adapter_config.json";
  require_readable(parts, text, config_path);
  std::vector<Matrix<T>> folded;
  folded.reserve(parts.size());  // their numbers stay where they are
  if (config.dialect == PeftDialect::paper) {
    for (PeftPart<T>& part : parts) {
      if (!part.mora) continue;
      if (part.mora->scale != 1.0) {
        folded.push_back(scaled(part));
        part.tensors.front().data = folded.back().data();
      }
      // The paper's code has the one matrix under both names.
      part.tensors.front().role = PeftRole::a;
      part.tensors.push_back(part.tensors.front());
      part.tensors.back().role = PeftRole::b;
    }
  }
  std::vector<TensorInfo> infos;
  std::map<std::string, std::span<const T>, std::less<>> numbers;
  for (const PeftPart<T>& part : parts) {
    for (const auto& tensor : part.tensors) {
      infos.push_back({peft_name(part.module, tensor.role), dtype, tensor.shape});
      const auto count = static_cast<std::size_t>(number_count(infos.back()));
      if (!numbers.emplace(infos.back().name, std::span<const T>(tensor.data, count)).second) {
        throw ArgumentError(concat(part.module, ": is there twice"));
      }
    }
  }
  make_folder(folder);
  AtomicFile config_file(config_path);
  config_file.write(std::as_bytes(std::span(text)));
  config_file.finish();
  SafetensorsWriter writer(folder / "adapter_model.safetensors", std::move(infos),
                           {{"format", "pt"}});
  for (const TensorInfo& info : writer.tensors()) writer.write(info.name, numbers.at(info.name));
  writer.finish();
  // So that an old config never describes the new tensors: the folder has none in between.
  remove_file(config_path);
  writer.commit();
  config_file.commit();
}

/// What belongs together: a tied embedding that trains goes under both names, as PEFT does.
template <Real T>
void write_peft(const std::filesystem::path& folder, std::vector<PeftPart<T>> parts, bool tied_head,
                const PeftSaveSettings& settings) {
  const auto embedding = std::find_if(parts.begin(), parts.end(), [](const auto& part) {
    return part.module == "model.embed_tokens";
  });
  const bool tied = embedding != parts.end() && tied_head;
  if (tied) {
    PeftPart<T> head = *embedding;
    head.module = "lm_head";
    parts.push_back(std::move(head));
  }
  PeftConfig config = peft_config_of(parts, settings);
  // PEFT's HiRA, LoKr and MiSS do not have that key; there both are named.
  const bool has_key = config.dialect != PeftDialect::hira && config.dialect != PeftDialect::lokr &&
                       config.dialect != PeftDialect::miss;
  config.ensure_weight_tying = tied && has_key;
  if (config.ensure_weight_tying) std::erase(config.modules_to_save, "lm_head");
  write_peft(folder, std::move(parts), config, settings.dtype.value_or(dtype_of<T>()));
}

}  // namespace detail

/// Writes adapters as a PEFT folder, which is made when it is not there: LoRA's, DoRA's over it,
/// HiRA's, LoKr's and MiSS's as PEFT does; MoRA's as the paper's fork of PEFT does where that has
/// the operator and the sides, else in this library's dialect ("peft_type": "MORA"); a FullAdapter
/// as a whole module (modules_to_save). A crash leaves the old adapter, the new one, or a folder
/// without adapter_config.json, which does not load. Throws ArgumentError for what one folder
/// cannot say (several operators, scalings or dropouts; an adapter of a type of the caller's; no
/// adapter; names that would be read as others'), NumericError for numbers that the dtype cannot
/// hold, FileError as AtomicFile does; the folder is then as it was, but for a failure of the last
/// renamings.
template <Real T>
void save_peft(const std::vector<NamedAdapter<T>>& adapters, const std::filesystem::path& folder,
               const PeftSaveSettings& settings = {}) {
  std::vector<AttachedModule<T>> modules;
  for (const NamedAdapter<T>& each : adapters) {
    modules.push_back({.module = each.module, .adapter = &each.adapter, .dropout = each.dropout});
  }
  detail::write_peft(folder, detail::parts_of<T>(modules), settings.tied_head, settings);
}

/// The same with what a LLaMA has under `name`. An embedding that trains and is the head too is
/// written under both names, as PEFT does. Throws StateError while the model is merged: its weights
/// and the adapter, both saved, would count the update twice.
template <Real T>
void save_peft(const Llama<T>& model, const std::string& name, const std::filesystem::path& folder,
               const PeftSaveSettings& settings = {}) {
  if (model.merged()) throw StateError("save_peft: the model is merged; unmerge it first");
  const std::vector<AttachedModule<T>> modules = model.attached(name);
  detail::write_peft(folder, detail::parts_of<T>(modules), model.config().tie_word_embeddings,
                     settings);
}

}  // namespace mora::inline MORA_ABI
