// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <mora/io/sharded_tensors.hpp>
#include <mora/io/sharded_writer.hpp>
#include <string>
#include <vector>

#include "support/files.hpp"
#include "support/safetensors_cases.hpp"
#include "support/sanitizers.hpp"
#include "support/throws.hpp"

/// \file
/// Models in several files: cases 137 to 143 of docs/bad_inputs.md.

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Dtype;
using mora::FileAccess;
using mora::FileError;
using mora::FormatError;
using mora::Index;
using mora::parse_shard_index;
using mora::ShardedTensors;
using mora::ShardedWriter;
using mora::TensorInfo;
namespace fs = std::filesystem;

constexpr const char* index_name = "model.safetensors.index.json";

[[nodiscard]] std::string shard(std::string_view tensor, std::string_view data) {
  return with_header(
      "{" + entry_of_bytes(tensor, "0", std::to_string(data.size()), std::to_string(data.size())) +
          "}",
      data);
}

[[nodiscard]] std::string text_of(const mora::StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

/// A folder with an index and the files "one", with tensor a, and "two", with tensor b.
class Model {
 public:
  Model() {
    write_file(folder / "one", shard("a", "aaaa"));
    write_file(folder / "two", shard("b", "bbbbbbbb"));
    write_index(R"({"metadata":{"total_size":12},"weight_map":{"a":"one","b":"two"}})");
  }
  void write_index(std::string_view json) const { write_file(folder / index_name, json); }
  [[nodiscard]] ShardedTensors open(bool links = false) const {
    return ShardedTensors(folder.where(), {.links = links});
  }

  TemporaryFolder folder;
};

TEST(ShardIndex, EndsAsItShould) {
  for (const FileCase& test : index_cases()) {
    SCOPED_TRACE(test.name);
    if (!test.fault.empty()) {
      EXPECT_TRUE(throws<FormatError>({"folder/index", test.fault}, [&] {
        (void)parse_shard_index(test.bytes, "folder/index");
      }));
      continue;
    }
    const auto index = parse_shard_index(test.bytes, "index");
    const auto again = parse_shard_index(mora::shard_index_json(index), "index");
    EXPECT_EQ(again.weight_map, index.weight_map);
    EXPECT_EQ(again.total_size, index.total_size);
    EXPECT_EQ(index.warnings.size(), test.name.starts_with("140 total") ? 1u : 0u);
  }
}

TEST(ShardIndex, SurvivesEveryChangeAndTruncation) {
  const std::string good =
      R"({"metadata":{"total_size":12},"weight_map":{"a":"one","b.\u00e9":"two"}})";
  const auto survives = [](const std::string& text) {
    try {
      const auto index = parse_shard_index(text, "index");
      for (const auto& [tensor, file] : index.weight_map) {
        EXPECT_EQ(path(file).filename(), path(file)) << file;
      }
    } catch (const FormatError&) {
    }
  };
  for (std::size_t at = 0; at < good.size(); ++at) {
    EXPECT_THROW((void)parse_shard_index(good.substr(0, at), "index"), FormatError);
    for (int bits = 1; bits < 256; ++bits) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ bits);
      survives(bad);
    }
  }
}

// 137: names are looked at before any file is.
TEST(ShardedTensors, OpenNothingForABadName) {
  const Model model;
  for (const FileCase& test : index_cases()) {
    if (!test.name.starts_with("137")) continue;
    SCOPED_TRACE(test.name);
    fs::remove(model.folder / "one");  // would be missed
    model.write_index(test.bytes);
    EXPECT_TRUE(throws<FormatError>({index_name, test.fault}, [&] { (void)model.open(); }));
  }
}

TEST(ShardedTensors, AreThoseOfAllFiles) {
  const Model model;
  for (const path& where : {model.folder.where(), model.folder / index_name}) {
    for (const FileAccess access : {FileAccess::mapped, FileAccess::copied}) {
      const ShardedTensors tensors(where, {.access = access});
      ASSERT_EQ(tensors.size(), 2);
      EXPECT_EQ(tensors.files().size(), 2u);
      EXPECT_EQ(tensors.tensors()[1].name(), "b");
      EXPECT_EQ(text_of(tensors.tensor("a")), "aaaa");
      EXPECT_EQ(text_of(tensors.tensor("b")), "bbbbbbbb");
      EXPECT_EQ(tensors.tensor("b").file().filename(), "two");
      EXPECT_FALSE(tensors.find("c"));
      EXPECT_TRUE(throws<FormatError>({index_name, "tensor 'c'", "none of the 2"},
                                      [&] { (void)tensors.tensor("c"); }));
      EXPECT_TRUE(tensors.warnings().empty());
      for (const auto& file : tensors.files()) use(file);
    }
  }
}

TEST(ShardedTensors, MayBeOneFile) {
  const TemporaryFolder folder;
  write_file(folder / "model.safetensors", shard("a", "aaaa"));
  for (const path& where : {folder.where(), folder / "model.safetensors"}) {
    const ShardedTensors tensors(where);
    EXPECT_EQ(tensors.size(), 1);
    EXPECT_EQ(text_of(tensors.tensor("a")), "aaaa");
    EXPECT_TRUE(
        throws<FormatError>({"model.safetensors, tensor 'b'"}, [&] { (void)tensors.tensor("b"); }));
  }
  write_file(folder / "other.safetensors", shard("b", "bbbb"));
  EXPECT_EQ(ShardedTensors(folder.where(), {.name = "other"}).tensors()[0].name(), "b");
  write_file(folder / index_name, R"({"weight_map":{}})");
  EXPECT_TRUE(throws<FormatError>({"model.safetensors and model.safetensors.index.json", "both"},
                                  [&] { ShardedTensors(folder.where()); }));
  EXPECT_TRUE(throws<FileError>({folder.where().string(), "third.safetensors", "neither"},
                                [&] { ShardedTensors(folder.where(), {.name = "third"}); }));
  EXPECT_THROW(ShardedTensors(folder / "nothing"), FileError);
}

// 138: a link within the folder is fine; one that leads out is followed when asked for.
// As in Hugging Face's cache.
TEST(ShardedTensors, FollowLinksOfNamesThatNoFileSays) {
  const Model model;
  const TemporaryFolder& folder = model.folder;
  fs::create_directory(folder / "outside");
  fs::rename(folder / index_name, folder / "outside" / index_name);
  fs::create_symlink(folder / "outside" / index_name, folder / index_name);
  EXPECT_EQ(model.open().size(), 2);
  fs::create_symlink(folder / "one", folder / "outside" / "model.safetensors");
  fs::remove(folder / "outside" / index_name);
  EXPECT_EQ(ShardedTensors(folder / "outside").size(), 1);
}

TEST(ShardedTensors, StayInTheirFolder) {
  const Model model;
  const TemporaryFolder& folder = model.folder;
  fs::create_directory(folder / "outside");
  fs::rename(folder / "two", folder / "outside" / "two");
  const auto refused = [&](std::string_view text) {
    return throws<FormatError>({(folder / "two").string(), text, "links = true"},
                               [&] { (void)model.open(); });
  };
  fs::create_symlink("outside/two", folder / "two");
  EXPECT_TRUE(refused("found a link to"));
  EXPECT_EQ(model.open(true).size(), 2);
  fs::remove(folder / "two");
  fs::create_symlink(folder / "outside" / "two", folder / "two");
  EXPECT_TRUE(refused("found a link to"));
  fs::remove(folder / "two");
  fs::create_hard_link(folder / "outside" / "two", folder / "two");
  EXPECT_TRUE(refused("found 2 hard links"));
  EXPECT_EQ(model.open(true).size(), 2);
  fs::remove(folder / "outside" / "two");
  EXPECT_EQ(model.open().size(), 2);
  fs::rename(folder / "two", folder / "real");
  fs::create_symlink("real", folder / "two");
  EXPECT_EQ(model.open().size(), 2);
  // The folder itself may be reached by a link.
  fs::create_directory_symlink(folder.where(), folder / "outside" / "back");
  EXPECT_EQ(ShardedTensors(folder / "outside" / "back").size(), 2);
  for (const char* const to : {"nothing", "two"}) {
    fs::remove(folder / "two");
    fs::create_symlink(to, folder / "two");
    EXPECT_TRUE(
        throws<FileError>({(folder / "two").string(), index_name}, [&] { (void)model.open(); }));
  }
}

// 138: without waiting for anybody.
TEST(ShardedTensors, AreRegularFiles) {
  const Model model;
  fs::remove(model.folder / "two");
  EXPECT_TRUE(throws<FileError>(
      {(model.folder / "two").string(), "cannot open this shard of", "No such file"},
      [&] { (void)model.open(); }));
  fs::create_directory(model.folder / "two");
  EXPECT_TRUE(throws<FileError>({"two", "Is a directory"}, [&] { (void)model.open(); }));
  fs::remove(model.folder / "two");
  ASSERT_EQ(::mkfifo((model.folder / "two").c_str(), 0600), 0);
  EXPECT_TRUE(throws<FileError>({"two", "found a pipe"}, [&] { (void)model.open(); }));
  fs::remove(model.folder / "two");
  fs::create_symlink("/dev/zero", model.folder / "two");
  EXPECT_TRUE(throws<FormatError>({"found a link to /dev/zero"}, [&] { (void)model.open(); }));
  EXPECT_TRUE(throws<FileError>({"/dev/zero", "device"}, [&] { (void)model.open(true); }));
}

// 139
TEST(ShardedTensors, AgreeWithTheIndex) {
  const Model model;
  const auto refused = [&](std::initializer_list<std::string_view> parts) {
    return throws<FormatError>(parts, [&] { (void)model.open(); });
  };
  model.write_index(R"({"weight_map":{"a":"one","b":"two","c":"two"}})");
  EXPECT_TRUE(refused({index_name, "tensor 'c': expected in 'two', which does not have it"}));
  model.write_index(R"({"weight_map":{"a":"one","b":"one"}})");
  EXPECT_TRUE(refused({"tensor 'b': expected in 'one', which does not have it"}));
  write_file(model.folder / "one", with_header("{" + entry_of_bytes("a", "0", "4", "4") + "," +
                                                   entry_of_bytes("x", "4", "4", "0") + "}",
                                               "aaaa"));
  model.write_index(R"({"weight_map":{"a":"one","b":"two"}})");
  EXPECT_TRUE(refused({index_name, "tensor 'x': is in 'one', and not in the index"}));
  write_file(model.folder / "one", with_header("{" + entry_of_bytes("a", "0", "4", "4") + "," +
                                                   entry_of_bytes("b", "4", "8", "4") + "}",
                                               "aaaabbbb"));
  EXPECT_TRUE(refused({index_name, "tensor 'b': expected in 'two' alone, found in 'one' too"}));
}

// 140: nothing is read by it, so it is no reason to refuse a model.
TEST(ShardedTensors, WarnOfAWrongTotalSize) {
  const Model model;
  const auto warning = [&](std::string_view size) {
    model.write_index("{\"metadata\":{\"total_size\":" + std::string(size) +
                      R"(},"weight_map":{"a":"one","b":"two"}})");
    const auto warnings = model.open().warnings();
    return warnings.size() == 1 ? warnings[0] : "warnings: " + std::to_string(warnings.size());
  };
  const std::string where = (model.folder / index_name).string() + ": ";
  EXPECT_EQ(warning("12"), "warnings: 0");
  EXPECT_EQ(warning("13"), where + "total_size: expected 12 bytes, found 13");
  EXPECT_EQ(warning("12.0"),
            where + "total_size: expected a whole number of bytes, found the number 12.0");
  EXPECT_EQ(warning("\"12\""),
            where + "total_size: expected a whole number of bytes, found the string '12'");
  EXPECT_EQ(warning("-12"),
            where + "total_size: expected a whole number of bytes, found the number -12");
}

// 141
TEST(ShardedTensors, MayBeManyOrFarTooMany) {
  const Model model;
  std::string json = R"({"weight_map":{"a":"one","b":"two")";
  constexpr int many = under_address_sanitizer ? 100'000 : 1'000'000;
  for (int i = 0; i < many; ++i) json += ",\"t" + std::to_string(i) + "\":\"two\"";
  json += "}}";
  model.write_index(json);
  EXPECT_TRUE(throws<FormatError>({index_name, "tensor 't0': expected in 'two'"},
                                  [&] { (void)model.open(); }));
  const std::string blanks(100'000'001, ' ');
  EXPECT_TRUE(throws<FormatError>({"expected at most 100000000 bytes, found 100000001"},
                                  [&] { (void)parse_shard_index(blanks, "index"); }));
  write_file(model.folder / index_name, "");
  EXPECT_TRUE(throws<FormatError>({index_name, "found an empty one"}, [&] { (void)model.open(); }));
}

// 142
TEST(ShardedTensors, SayWhichFileIsTruncated) {
  const Model model;
  const std::string whole = read_file(model.folder / "two");
  for (std::size_t size = 1; size < whole.size(); ++size) {
    write_file(model.folder / "two", whole.substr(0, size));
    EXPECT_TRUE(throws<FormatError>({(model.folder / "two").string(), "expected"},
                                    [&] { (void)model.open(); }));
  }
}

// 143
TEST(ShardedTensors, MayBeInFoldersOfAnyName) {
  const TemporaryFolder folder;
  for (const char* const name : {"with blanks", "\xc3\xa9\xe6\xbc\xa2", "not UTF-8 \xff", "end/"}) {
    fs::create_directory(folder / name);
    write_file(folder / name / index_name, R"({"weight_map":{"a":"one \u00e9"}})");
    write_file(folder / name / "one \xc3\xa9", shard("a", "aaaa"));
    EXPECT_EQ(ShardedTensors(folder / name).size(), 1) << name;
  }
  EXPECT_TRUE(throws<FileError>({"File name too long"},
                                [&] { ShardedTensors(folder / std::string(5000, 'x')); }));
}

[[nodiscard]] std::vector<TensorInfo> infos() {
  return {{"a", Dtype::f32, {2}}, {"b", Dtype::u8, {4}}, {"c", Dtype::f32, {8}},
          {"d", Dtype::u8, {3}},  {"e", Dtype::u8, {0}}, {"f", Dtype::f64, {1}}};
}

void write_all(ShardedWriter& writer, char first = 'a') {
  for (const TensorInfo& info : writer.tensors()) {
    const std::string data(std::size_t(mora::byte_count(info)), first++);
    writer.write(info.name, std::as_bytes(std::span(data)));
  }
}

// As huggingface_hub: a tensor that is too large goes by itself, and the file at hand goes on.
TEST(ShardedWriter, DealsTensorsOutInOrder) {
  const auto names = [](Index most) {
    std::string text;
    for (const auto& shard : mora::plan_shards(infos(), most)) {
      for (const auto& info : shard) text += info.name;
      text += '|';
    }
    return text;
  };
  EXPECT_EQ(names(1000), "abcdef|");
  EXPECT_EQ(names(55), "abcdef|");
  EXPECT_EQ(names(54), "abcde|f|");
  EXPECT_EQ(names(16), "c|abde|f|");
  EXPECT_EQ(names(12), "c|ab|def|");
  EXPECT_EQ(names(11), "a|c|bde|f|");
  EXPECT_EQ(mora::plan_shards({}, 1).size(), 1u);
}

TEST(ShardedWriter, WritesWhatIsRead) {
  for (const Index most : {Index{1000}, Index{16}, Index{12}, Index{1}}) {
    const TemporaryFolder folder;
    ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = most});
    write_all(writer);
    for (const auto& name : folder.names()) EXPECT_TRUE(name.starts_with(".mora-")) << name;
    writer.commit();
    const ShardedTensors tensors(folder.where());
    ASSERT_EQ(tensors.size(), 6);
    EXPECT_TRUE(tensors.warnings().empty());
    char letter = 'a';
    for (const TensorInfo& info : writer.tensors()) {
      const auto tensor = tensors.tensor(info.name);
      EXPECT_EQ(tensor.info(), info);
      EXPECT_EQ(text_of(tensor), std::string(std::size_t(mora::byte_count(info)), letter++));
    }
    for (const auto& file : tensors.files()) {
      EXPECT_EQ(file.metadata(), (mora::TextMap{{"format", "pt"}}));
    }
    EXPECT_EQ(fs::exists(folder / index_name), most < 1000);
    EXPECT_EQ(fs::exists(folder / "model.safetensors"), most == 1000);
  }
}

TEST(ShardedWriter, NamesFilesAsHuggingFaceDoes) {
  const TemporaryFolder folder;
  ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = 12});
  write_all(writer);
  writer.commit();
  EXPECT_EQ(folder.names(),
            (std::vector<std::string>{"model-00001-of-00003.safetensors",
                                      "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", index_name}));
  // json.dumps(index, indent=2, sort_keys=True) + "\n"
  EXPECT_EQ(read_file(folder / index_name),
            "{\n"
            "  \"metadata\": {\n"
            "    \"total_size\": 55\n"
            "  },\n"
            "  \"weight_map\": {\n"
            "    \"a\": \"model-00002-of-00003.safetensors\",\n"
            "    \"b\": \"model-00002-of-00003.safetensors\",\n"
            "    \"c\": \"model-00001-of-00003.safetensors\",\n"
            "    \"d\": \"model-00003-of-00003.safetensors\",\n"
            "    \"e\": \"model-00003-of-00003.safetensors\",\n"
            "    \"f\": \"model-00003-of-00003.safetensors\"\n"
            "  }\n"
            "}\n");
}

// 147: a model over itself, whose new files have the names of the old ones or others.
TEST(ShardedWriter, ReplacesTheModelItReads) {
  const TemporaryFolder folder;
  for (const Index most : {Index{12}, Index{12}, Index{1000}, Index{16}, Index{1000}}) {
    std::vector<std::string> before;
    {
      ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = 11});
      write_all(writer, 'k');
      writer.commit();
    }
    const ShardedTensors old(folder.where());
    ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = most});
    for (const TensorInfo& info : writer.tensors()) {
      writer.write(info.name, old.tensor(info.name).bytes());
    }
    writer.commit();
    const ShardedTensors now(folder.where());
    for (const auto& tensor : old.tensors()) {
      EXPECT_EQ(text_of(now.tensor(tensor.name())), text_of(tensor));
    }
  }
}

TEST(ShardedWriter, ChangesNothingWithoutCommit) {
  const Model model;
  const auto names = model.folder.names();
  {
    ShardedWriter writer(model.folder.where(), infos(), {.max_shard_bytes = 12});
    EXPECT_TRUE(throws<mora::StateError>({"tensor 'c': expected 32 bytes, found 0"},
                                         [&] { writer.commit(); }));
    EXPECT_TRUE(throws<ArgumentError>({"tensor 'b'", "tensor 'c' with 32 more bytes next"}, [&] {
      writer.write("b", std::as_bytes(std::span("abcd", 4)));
    }));
    write_all(writer);
  }
  EXPECT_EQ(model.folder.names(), names);
  EXPECT_EQ(model.open().size(), 2);
}

TEST(ShardedWriter, RefusesWhatCannotBe) {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<TensorInfo> tensors, const ShardedWriter::Settings& settings,
                           std::string_view text) {
    const auto result =
        throws<ArgumentError>({text}, [&] { ShardedWriter(folder.where(), tensors, settings); });
    EXPECT_TRUE(folder.names().empty());
    return result;
  };
  EXPECT_TRUE(refused({{"a", Dtype::u8, {1}}, {"a", Dtype::u8, {1}}}, {.max_shard_bytes = 1},
                      "tensor 'a': expected once, found twice"));
  EXPECT_TRUE(refused({}, {.max_shard_bytes = 0}, "max_shard_bytes: expected at least 1"));
  EXPECT_TRUE(refused({}, {.name = "../model"}, "found '../model'"));
  EXPECT_TRUE(refused({{"a", Dtype::u8, {-1}}}, {}, "found -1"));
  EXPECT_THROW(ShardedWriter(folder / "nothing", {}), FileError);
}

// An error in between leaves no index that names a mixture.
TEST(ShardedWriter, LeavesNoMixtureBehind) {
  const TemporaryFolder folder;
  {
    ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = 12});
    write_all(writer);
    writer.commit();
  }
  ShardedWriter writer(folder.where(), infos(), {.max_shard_bytes = 12});
  write_all(writer, 'p');
  fs::remove(folder / "model-00002-of-00003.safetensors");
  fs::create_directories(folder / "model-00002-of-00003.safetensors" / "in the way");
  EXPECT_THROW(writer.commit(), FileError);
  EXPECT_TRUE(throws<FileError>({"found neither"}, [&] { ShardedTensors(folder.where()); }));
}

}  // namespace
}  // namespace mora_tests
