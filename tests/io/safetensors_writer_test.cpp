// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <limits>
#include <mora/io/safetensors.hpp>
#include <mora/io/safetensors_writer.hpp>
#include <string>
#include <vector>

#include "support/files.hpp"
#include "support/not_finite.hpp"
#include "support/tensor_files.hpp"
#include "support/throws.hpp"

namespace mora_tests {
namespace {

using mora::ArgumentError;
using mora::Dtype;
using mora::Index;
using mora::lay_out_safetensors;
using mora::NumericError;
using mora::SafetensorsFile;
using mora::SafetensorsWriter;
using mora::ShapeError;
using mora::StateError;
using mora::TensorInfo;

constexpr const char* fixtures[] = {"dtypes", "names", "shapes", "empty", "metadata"};

[[nodiscard]] path fixture(const std::string& name) {
  return path(MORA_FIXTURES) / "safetensors" / (name + ".safetensors");
}

[[nodiscard]] std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// 110
TEST(SafetensorsWriter, WritesTheReferencesBytes) {
  const TemporaryFolder folder;
  for (const std::string name : fixtures) {
    const SafetensorsFile file(fixture(name));
    auto tensors = as_bytes(file.tensors());
    for (int order = 0; order < 2; ++order) {
      mora::write_safetensors(folder / name, tensors, file.metadata());
      EXPECT_EQ(read_file(folder / name), read_file(fixture(name))) << name;
      std::reverse(tensors.begin(), tensors.end());
    }
  }
}

// From its own lists, so that the reader has no part in it.
TEST(SafetensorsWriter, LaysOutWhatTheReferenceDoes) {
  using namespace std::string_literals;  // NOLINT
  std::vector<TensorInfo> names;
  for (const std::string& name : {"b"s,
                                  "a"s,
                                  ""s,
                                  "a/b"s,
                                  "quote\""s,
                                  "back\\slash"s,
                                  "tab\t"s,
                                  "newline\n"s,
                                  "return\r"s,
                                  "feed\f"s,
                                  "bell\b"s,
                                  "zero\0"s,
                                  "one\x01"s,
                                  "unit\x1f"s,
                                  "delete\x7f"s,
                                  "\xc3\xa9"s,
                                  "\xe6\xbc\xa2"s,
                                  "\xf0\x9f\x98\x80"s,
                                  "model.layers.10.w"s,
                                  "model.layers.9.w"s,
                                  "Z"s,
                                  "_"s,
                                  "\xe2\x80\xa8"s}) {
    names.push_back({name, Dtype::f32, {1}});
  }
  const auto layout = lay_out_safetensors(names, {{"k\"\n\xc3\xa9", "v\\\t\xf0\x9f\x98\x80\x7f"}});
  const std::string expected = read_file(fixture("names"));
  EXPECT_EQ(layout.header, expected.substr(0, layout.header.size()));
  EXPECT_EQ(layout.file_bytes, std::ssize(expected));
  EXPECT_EQ(layout.header.size() % 8, 0u);

  std::vector<TensorInfo> dtypes;
  const char* const others[] = {"bool",
                                "float4",
                                "",
                                "",
                                "uint8",
                                "int8",
                                "float8_e5m2",
                                "float8_e4m3fn",
                                "float8_e8m0fnu",
                                "float8_e4m3fnuz",
                                "float8_e5m2fnuz",
                                "int16",
                                "uint16",
                                "float16",
                                "bfloat16",
                                "int32",
                                "uint32",
                                "float32",
                                "complex64",
                                "float64",
                                "int64",
                                "uint64"};
  for (std::size_t i = 0; i < std::size(others); ++i) {
    if (*others[i] == '\0') continue;  // the package cannot write it
    const auto dtype = static_cast<Dtype>(i);
    const Index columns = dtype == Dtype::f4 ? 8 : 3;
    dtypes.push_back({std::string("t.") + others[i], dtype, {2, columns}});
  }
  const auto all = lay_out_safetensors(dtypes, {{"format", "pt"}});
  EXPECT_EQ(all.header, read_file(fixture("dtypes")).substr(0, all.header.size()));

  EXPECT_EQ(lay_out_safetensors({}).header, "\x08\0\0\0\0\0\0\0{}      "s);
  // The order of several keys is the library's own: it is sorted.
  EXPECT_EQ(lay_out_safetensors({}, {{"b", "2"}, {"a", "1"}}).header.substr(8),
            R"({"__metadata__":{"a":"1","b":"2"}}      )");
}

TEST(SafetensorsWriter, TakesTensorsInPieces) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder / "file", {{"a", Dtype::u8, {6}},
                                             {"none", Dtype::f32, {0}},
                                             {"b", Dtype::f32, {2}},
                                             {"void", Dtype::u8, {3, 0}}});
  ASSERT_EQ(writer.tensors().size(), 4u);
  EXPECT_EQ(writer.tensors()[0].name, "b");
  EXPECT_EQ(writer.tensors()[1].name, "none");
  writer.write("b", bytes("abc"));
  writer.write("b", bytes(""));
  writer.write("b", bytes("defgh"));
  writer.write("a", bytes("ijkl"));  // passes over "none"
  EXPECT_EQ(folder.names().size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(folder / "file"));
  writer.write("a", bytes("mn"));
  writer.commit();
  EXPECT_EQ(folder.names(), std::vector<std::string>{"file"});
  const SafetensorsFile file(folder / "file");
  use(file);
  EXPECT_EQ(read_file(folder / "file").substr(read_file(folder / "file").size() - 14),
            "abcdefghijklmn");
  EXPECT_THROW(writer.write("a", bytes("x")), mora::Error);
  EXPECT_THROW(writer.commit(), StateError);
}

// Nothing has changed afterwards: the file comes out right.
TEST(SafetensorsWriter, RefusesTheWrongTensorOrSize) {
  const TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "file", {{"a", Dtype::u8, {4}}, {"b", Dtype::f32, {1}}});
    const auto refuses_argument = [&](std::string_view name, std::string_view next) {
      return throws<ArgumentError>({"file, tensor '", name, "expected ", next},
                                   [&] { writer.write(name, bytes("x")); });
    };
    EXPECT_TRUE(refuses_argument("a", "tensor 'b' with 4 more bytes next"));
    EXPECT_TRUE(refuses_argument("c", "tensor 'b' with 4 more bytes next"));
    writer.write("b", bytes("12"));
    EXPECT_TRUE(refuses_argument("a", "tensor 'b' with 2 more bytes next"));
    EXPECT_TRUE(
        throws<ShapeError>({"tensor 'b' (F32, [1]): expected at most 2 more bytes, found 3"},
                           [&] { writer.write("b", bytes("345")); }));
    EXPECT_TRUE(
        throws<StateError>({"tensor 'b': expected 4 bytes, found 2"}, [&] { writer.commit(); }));
    writer.write("b", bytes("34"));
    EXPECT_TRUE(throws<ShapeError>({"tensor 'b'", "at most 0 more bytes, found 1"},
                                   [&] { writer.write("b", bytes("5")); }));
    EXPECT_TRUE(
        throws<StateError>({"tensor 'a': expected 4 bytes, found 0"}, [&] { writer.commit(); }));
    writer.write("a", bytes("5678"));
    EXPECT_TRUE(refuses_argument("c", "no more tensors"));
    writer.commit();
  }
  EXPECT_TRUE(read_file(folder / "file").ends_with("12345678"));
  EXPECT_TRUE(throws<ShapeError>({"one, tensor 't': expected 4 bytes, found 3"}, [&] {
    const mora::TensorBytes tensors[] = {{{"t", Dtype::f32, {1}}, bytes("abc")}};
    mora::write_safetensors(folder / "one", tensors);
  }));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"file"});
}

TEST(SafetensorsWriter, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  write_file(folder / "file", "old");
  {
    SafetensorsWriter writer(folder / "file", {{"a", Dtype::u8, {4}}});
    writer.write("a", bytes("abcd"));
    writer.finish();
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"file"});
  EXPECT_EQ(read_file(folder / "file"), "old");
}

TEST(SafetensorsWriter, ConvertsNumbers) {
  const TemporaryFolder folder;
  std::vector<TensorInfo> infos;
  for (const Dtype dtype :
       {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::f8_e4m3, Dtype::f8_e5m2}) {
    infos.push_back({std::string(mora::name_of(dtype)), dtype, {3, 4000}});
  }
  std::vector<float> numbers(12'000);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = float(i % 8) / 8 - 0.5f;
  numbers[7] = nan<float>;
  SafetensorsWriter writer(folder / "file", infos);
  for (const TensorInfo& info : writer.tensors()) {
    const auto some = std::span<const float>(numbers);
    const std::vector<double> rest(numbers.begin() + 5000, numbers.end());
    writer.write(info.name, some.first(5000));
    EXPECT_TRUE(throws<ShapeError>({"expected at most 7000 more numbers, found 12000"},
                                   [&] { writer.write(info.name, some); }));
    writer.write(info.name, std::span<const double>(rest));
  }
  writer.commit();
  const SafetensorsFile file(folder / "file");
  for (const auto& tensor : file.tensors()) {
    const auto found = tensor.numbers<float>();
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (i == 7) {
        EXPECT_NE(found.values[i], found.values[i]);
      } else {
        ASSERT_EQ(found.values[i], numbers[i]) << tensor.name() << " " << i;
      }
    }
  }
}

// 69: no infinity comes from a number.
TEST(SafetensorsWriter, RefusesNumbersThatTheDtypeCannotHold) {
  const TemporaryFolder folder;
  const auto refused = [&](Dtype dtype, double number, std::string_view text) {
    SafetensorsWriter writer(folder / "file", {{"t", dtype, {2}}});
    const double numbers[] = {1, number};
    const auto result = throws<NumericError>(
        {"file, tensor 't', number 1 of 2: ", text, " is too large for ", mora::name_of(dtype)},
        [&] { writer.write("t", std::span<const double>(numbers)); });
    const double fine[] = {1, infinity<double>};
    writer.write("t", std::span<const double>(fine));  // asked for, and nothing was written before
    writer.commit();
    return result;
  };
  EXPECT_TRUE(refused(Dtype::f16, 65520, "65520"));
  EXPECT_TRUE(refused(Dtype::f16, -1e6, "-1e+06"));
  EXPECT_TRUE(refused(Dtype::bf16, 3.4e38, "3.4e+38"));
  EXPECT_TRUE(refused(Dtype::f32, 1e39, "1e+39"));
  EXPECT_TRUE(refused(Dtype::f8_e4m3, 465, "465"));
  EXPECT_TRUE(refused(Dtype::f8_e5m2, 61440, "61440"));
  SafetensorsWriter writer(folder / "file", {{"t", Dtype::i32, {1}}});
  const float one[] = {1};
  EXPECT_TRUE(throws<ArgumentError>({"tensor 't'", "found I32"},
                                    [&] { writer.write("t", std::span<const float>(one)); }));
}

TEST(SafetensorsWriter, RefusesWhatNoFileCanSay) {
  const TemporaryFolder folder;
  const auto refused = [&](std::vector<TensorInfo> tensors, std::string_view text,
                           const mora::TextMap& metadata = {}) {
    const auto result = throws<ArgumentError>(
        {text}, [&] { SafetensorsWriter(folder / "file", tensors, metadata); });
    EXPECT_TRUE(folder.names().empty());
    return result;
  };
  const Index most = std::numeric_limits<Index>::max();
  EXPECT_TRUE(
      refused({{"a", Dtype::u8, {1}}, {"a", Dtype::f32, {1}}}, "tensor 'a': expected once"));
  EXPECT_TRUE(refused({{"__metadata__", Dtype::u8, {1}}}, "'__metadata__'"));
  EXPECT_TRUE(refused({{"a\xff", Dtype::u8, {1}}}, "expected UTF-8"));
  EXPECT_TRUE(refused({}, "expected UTF-8", {{"a", "\xc0\xaf"}}));
  EXPECT_TRUE(refused({}, "expected UTF-8", {{"\xed\xa0\x80", "b"}}));
  EXPECT_TRUE(refused({{"a", Dtype::u8, {-1}}}, "expected no negative number, found -1"));
  EXPECT_TRUE(refused({{"a", Dtype::u8, {most, 3}}}, "less than 2^64 numbers"));
  EXPECT_TRUE(refused({{"a", Dtype::u64, {most}}}, "less than 2^64 bits"));
  EXPECT_TRUE(refused({{"a", Dtype::f4, {3}}}, "expected whole bytes, found 12 bits"));
  EXPECT_TRUE(refused({{"a", static_cast<Dtype>(22), {3}}}, "found 22"));
  const Index large = Index{1} << 60;
  EXPECT_TRUE(refused({{"a", Dtype::u8, {large}},
                       {"b", Dtype::u8, {large}},
                       {"c", Dtype::u8, {large}},
                       {"d", Dtype::u8, {large}}},
                      "expected less than 2^62 bytes in one file"));
}

// 109; every header goes through this.
TEST(SafetensorsWriter, RefusesAHeaderBeyondTheLimit) {
  const std::string json(100'000'001, 'x');
  const auto size = [&](std::size_t bytes) {
    return mora::detail::framed_header(std::string_view(json).substr(0, bytes)).size();
  };
  EXPECT_EQ(size(99'999'993), 100'000'008u);
  EXPECT_EQ(size(100'000'000), 100'000'008u);
  EXPECT_TRUE(throws<ArgumentError>({"expected at most 100000000 bytes, found 100000008"},
                                    [&] { (void)size(100'000'001); }));
}

}  // namespace
}  // namespace mora_tests
