// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mora/io/atomic_file.hpp"
#include "mora/io/llama/config_file.hpp"
#include "mora/io/llama/stored_weight.hpp"
#include "mora/io/llama/tied_head.hpp"
#include "mora/io/sharded_tensors.hpp"
#include "mora/io/sharded_writer.hpp"
#include "mora/models/llama/llama.hpp"

namespace mora::inline MORA_ABI {

namespace detail {

/// As files have it: norms are vectors there.
[[nodiscard]] inline std::vector<Index> stored_shape(const LlamaTensor& tensor) {
  return tensor.vector ? std::vector<Index>{tensor.cols}
                       : std::vector<Index>{tensor.rows, tensor.cols};
}

}  // namespace detail

/// What becomes of weights that a file has as F16 or BF16.
enum class SmallWeights {
  widen,  ///< Copies as T.
  keep,   ///< As they are, at half of float's memory; products widen them (see FrozenLinear).
};

/// A Hugging Face LLaMA folder that is read: config.json, and model.safetensors or shards with
/// their index.
///
///     const mora::LlamaFolder folder("TinyLlama");
///     mora::Llama<float> model = folder.model<float>();
///
/// Opening it reads and checks the config and all headers; no weight but a tied head that is
/// stored.
class LlamaFolder {
 public:
  using Settings = ShardedTensorsSettings;

  /// Throws as read_llama_config and ShardedTensors do; FormatError naming the tensor for one that
  /// is missing, has another shape than the config says or numbers that cannot be converted
  /// (is_float), and for one that the model does not have: a bias, say. Left out with a warning are
  /// rotary_emb.inv_freq, which old files have, and lm_head.weight where the config says that it is
  /// the embedding; one of other numbers than the embedding's is refused.
  explicit LlamaFolder(const std::filesystem::path& folder, const Settings& settings = {})
      : file_(read_llama_config(folder / "config.json")),
        table_(file_.config),
        tensors_(folder, settings) {
    for (const LlamaTensor& wanted : table_.all()) {
      const StoredTensor tensor = tensors_.tensor(wanted.name);
      tensor.require_shape(detail::stored_shape(wanted));
      tensor.require_float();
    }
    warn_of_others();
  }

  [[nodiscard]] const LlamaConfig& config() const { return file_.config; }
  [[nodiscard]] const LlamaConfigFile& config_file() const { return file_; }
  /// All that are in the files, by name.
  [[nodiscard]] const ShardedTensors& tensors() const { return tensors_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const { return file_.warnings; }

  /// For those who want it strictly: throws FormatError naming file, tensor and number for the
  /// first weight that is NaN or infinite. Reads all of them, one in memory at a time.
  void require_finite() const {
    for (const LlamaTensor& wanted : table_.all()) {
      const StoredTensor tensor = tensors_.tensor(wanted.name);
      tensor.require_finite();
      tensor.release_pages();
    }
  }

  /// The model. Where a file has numbers of T at an aligned address they are used in place, and the
  /// model keeps the file mapped; others are converted into memory of their own, but for those of
  /// 16 bits that are to be kept.
  template <Real T>
  [[nodiscard]] Llama<T> model(SmallWeights small = SmallWeights::widen) const {
    std::vector<FrozenLinear<T>> weights;
    weights.reserve(table_.size());
    for (const LlamaTensor& wanted : table_.all()) {
      const Dtype dtype = tensors_.tensor(wanted.name).dtype();
      if (small == SmallWeights::keep && dtype == Dtype::f16) {
        weights.push_back(weight<T, Float16>(wanted));
      } else if (small == SmallWeights::keep && dtype == Dtype::bf16) {
        weights.push_back(weight<T, BFloat16>(wanted));
      } else {
        weights.push_back(weight<T, T>(wanted));
      }
    }
    return Llama<T>(config(), std::move(weights));
  }

 private:
  template <Real T, class Number>
  [[nodiscard]] FrozenLinear<T> weight(const LlamaTensor& wanted) const {
    return detail::stored_weight<T, Number>(tensors_.tensor(wanted.name), wanted.rows, wanted.cols);
  }

  void warn_of_others() {
    std::set<std::string_view> known;
    for (const LlamaTensor& wanted : table_.all()) known.insert(wanted.name);
    std::vector<std::string> left_out;
    std::optional<StoredTensor> odd;
    Index odd_count = 0;
    for (const StoredTensor& tensor : tensors_.tensors()) {
      const std::string& name = tensor.name();
      if (known.contains(name)) continue;
      const bool tied_head = name == "lm_head.weight" && config().tie_word_embeddings;
      if (tied_head) {
        detail::require_tied_numbers(tensors_.tensor(table_[LlamaTensors::embedding()].name),
                                     tensor);
      }
      if (tied_head || name.ends_with(".rotary_emb.inv_freq")) {
        left_out.push_back(name);
      } else {
        if (!odd) odd = tensor;
        ++odd_count;
      }
    }
    if (odd) {
      throw FormatError(odd->file(), detail::concat("tensor ", detail::in_quotes(odd->name())),
                        detail::concat("is none of this model's (", odd_count, " such)"));
    }
    file_.warnings.insert(file_.warnings.end(), tensors_.warnings().begin(),
                          tensors_.warnings().end());
    for (const std::string& name : left_out) {
      file_.warnings.push_back(detail::concat("tensor ", detail::in_quotes(name), " is left out"));
    }
  }

  LlamaConfigFile file_;
  LlamaTensors table_;
  ShardedTensors tensors_;
};

struct LlamaSaveSettings {
  Dtype dtype = Dtype::f32;               ///< f64, f32, f16 or bf16; rounded once.
  Index max_shard_bytes = 5'000'000'000;  ///< See ShardedWriterSettings.
  // For config.json, see LlamaConfigFile.
  std::vector<Index> eos_token_id = {};
  std::optional<Index> bos_token_id = std::nullopt;
  std::optional<Index> pad_token_id = std::nullopt;
};

/// Writes a model as a Hugging Face folder, which is made when it is not there: the frozen weights,
/// or the merged ones while the model is merged; adapters that are not merged are not written. The
/// weights come first and config.json last; a crash leaves the old model, the new one, or a folder
/// without config.json, which does not load. Throws NumericError for a number that the dtype cannot
/// hold, with the tensor's name; ArgumentError for a dtype that is none of the four; FileError as
/// ShardedWriter does.
template <Real T>
void save_llama(const Llama<T>& model, const std::filesystem::path& folder,
                const LlamaSaveSettings& settings = {}) {
  std::vector<TensorInfo> infos;
  std::map<std::string_view, std::size_t> places;
  for (std::size_t place = 0; place < model.tensors().size(); ++place) {
    const LlamaTensor& tensor = model.tensors()[place];
    infos.push_back({tensor.name, settings.dtype, detail::stored_shape(tensor)});
    places.emplace(tensor.name, place);
  }
  const std::string config = llama_config_json({.config = model.config(),
                                                .eos_token_id = settings.eos_token_id,
                                                .bos_token_id = settings.bos_token_id,
                                                .pad_token_id = settings.pad_token_id},
                                               settings.dtype);
  make_folder(folder);
  AtomicFile config_file(folder / "config.json");
  config_file.write(std::as_bytes(std::span(config)));
  config_file.finish();
  ShardedWriter writer(folder, std::move(infos), {.max_shard_bytes = settings.max_shard_bytes});
  for (const TensorInfo& info : writer.tensors()) {
    detail::write_weight(writer, info.name, model.weights()[places.at(info.name)]);
  }
  // So that an old config never describes the new weights: the folder has none in between.
  remove_file(folder / "config.json");
  writer.commit();
  config_file.commit();
}

}  // namespace mora::inline MORA_ABI
