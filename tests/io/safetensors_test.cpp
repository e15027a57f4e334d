// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
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

using mora::Dtype;
using mora::FileAccess;
using mora::FormatError;
using mora::Index;
using mora::SafetensorsFile;
using mora::StoredTensor;
using Shape = std::vector<Index>;

constexpr FileAccess accesses[] = {FileAccess::mapped, FileAccess::copied};

[[nodiscard]] path fixture(const std::string& name) {
  return path(MORA_FIXTURES) / "safetensors" / (name + ".safetensors");
}

template <class T>
[[nodiscard]] std::string bytes_of(const std::vector<T>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(T)};
}
[[nodiscard]] std::string text_of(const StoredTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes().data()), tensor.bytes().size()};
}

TEST(SafetensorsFile, HasWhatTheReferenceWrote) {
  for (const FileAccess access : accesses) {
    const SafetensorsFile file(fixture("shapes"), access);
    EXPECT_EQ(file.path(), fixture("shapes"));
    EXPECT_EQ(file.size(), 4);
    EXPECT_EQ(file.tensor("scalar").shape(), Shape{});
    EXPECT_EQ(file.tensor("scalar").size(), 1);
    EXPECT_EQ(text_of(file.tensor("scalar")), std::string("\0\x07\x0e\x15", 4));
    EXPECT_EQ(file.tensor("none").shape(), (Shape{0, 4}));
    EXPECT_EQ(file.tensor("nothing").dtype(), Dtype::f64);
    EXPECT_EQ(file.tensor("nine").shape(), (Shape{1, 2, 1, 1, 3, 1, 1, 1, 1}));
    EXPECT_EQ(file.tensors().back().name(), "nine");
    EXPECT_TRUE(file.metadata().empty());
  }
  EXPECT_EQ(SafetensorsFile(fixture("metadata")).metadata(), (mora::TextMap{{"format", "pt"}}));
  const SafetensorsFile dtypes(fixture("dtypes"));
  EXPECT_EQ(dtypes.size(), 20);
  use(dtypes);
  EXPECT_EQ(dtypes.tensor("t.float4").shape(), (Shape{2, 8}));
  EXPECT_EQ(dtypes.tensor("t.complex64").bytes().size(), 48u);
}

TEST(SafetensorsFile, SaysWhichTensorIsMissing) {
  const SafetensorsFile file(fixture("shapes"));
  EXPECT_FALSE(file.find("other"));
  EXPECT_FALSE(file.find(""));
  EXPECT_TRUE(throws<FormatError>({"shapes.safetensors, tensor 'other': ", "none of the 4"},
                                  [&] { (void)file.tensor("other"); }));
}

TEST(SafetensorsFile, SaysBothShapes) {
  const StoredTensor tensor = SafetensorsFile(fixture("shapes")).tensor("none");
  EXPECT_NO_THROW(tensor.require_shape({0, 4}));
  for (const Shape& shape : {Shape{0}, Shape{4, 0}, Shape{}, Shape{0, 4, 1}}) {
    EXPECT_TRUE(
        throws<FormatError>({"shapes.safetensors, tensor 'none': expected shape [", "found [0, 4]"},
                            [&] { tensor.require_shape(shape); }));
  }
}

// The tensor keeps the bytes; that there is no copy shows in the addresses.
TEST(SafetensorsFile, IsReadInPlace) {
  const std::vector<float> numbers = {1.5f, -0.0f, std::numeric_limits<float>::denorm_min()};
  std::string header = R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const TemporaryFolder folder;
  write_file(folder / "file", with_header(header, bytes_of(numbers)));
  for (const FileAccess access : accesses) {
    const auto tensor = [&] { return SafetensorsFile(folder / "file", access).tensor("t"); }();
    const auto floats = tensor.numbers<float>();
    EXPECT_TRUE(floats.in_place);
    EXPECT_EQ(static_cast<const void*>(floats.values.data()), tensor.bytes().data());
    EXPECT_EQ(text_of(tensor), bytes_of(numbers));
    EXPECT_EQ(bytes_of(std::vector(floats.values.begin(), floats.values.end())), bytes_of(numbers));
    const auto doubles = tensor.numbers<double>();
    EXPECT_FALSE(doubles.in_place);
    EXPECT_EQ(doubles.values[2], double(numbers[2]));
  }
}

// 49, 108: a U8 before it puts every number at an odd address.
TEST(SafetensorsFile, IsReadAtAnyAddress) {
  const std::vector<float> numbers = {1, 2, 3};
  for (int blanks = 0; blanks < 8; ++blanks) {
    const SafetensorsFile file =
        in_memory(with_header(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("t":{"dtype":"F32","shape":[3],"data_offsets":[1,13]}})" +
                                  std::string(std::size_t(blanks), ' '),
                              "x" + bytes_of(numbers)));
    const auto floats = file.tensor("t").numbers<float>();
    EXPECT_EQ(std::vector(floats.values.begin(), floats.values.end()), numbers);
    const auto address = reinterpret_cast<std::uintptr_t>(file.tensor("t").bytes().data());
    EXPECT_EQ(floats.in_place, address % alignof(float) == 0);
    EXPECT_EQ(file.tensor("t").numbers<double>().values[2], 3);
  }
}

// 69 - 71 by dtype; the conversions themselves are small_floats_test's.
TEST(SafetensorsFile, ConvertsEveryFloat) {
  const std::string json = R"({"f64":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
                           R"("f32":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},)"
                           R"("bf16":{"dtype":"BF16","shape":[2],"data_offsets":[24,28]},)"
                           R"("f16":{"dtype":"F16","shape":[2],"data_offsets":[28,32]},)"
                           R"("e4m3":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[32,34]},)"
                           R"("e5m2":{"dtype":"F8_E5M2","shape":[2],"data_offsets":[34,36]}})";
  using namespace std::string_literals;  // NOLINT
  const SafetensorsFile file = in_memory(with_header(
      json, bytes_of(std::vector<double>{1, -0.5}) + bytes_of(std::vector<float>{1, -0.5f}) +
                "\x80\x3f\0\xbf"s + "\0\x3c\0\xb8"s + "\x38\xb0" + "\x3c\xb8"));
  for (const StoredTensor& tensor : file.tensors()) {
    SCOPED_TRACE(tensor.name());
    const auto floats = tensor.numbers<float>();
    const auto doubles = tensor.numbers<double>();
    EXPECT_EQ(std::vector(floats.values.begin(), floats.values.end()),
              (std::vector<float>{1, -0.5f}));
    EXPECT_EQ(std::vector(doubles.values.begin(), doubles.values.end()),
              (std::vector<double>{1, -0.5}));
    std::array<float, 2> mine{};
    tensor.copy_to(std::span<float>(mine));
    EXPECT_EQ(mine[1], -0.5f);
    std::array<float, 3> more{};
    EXPECT_TRUE(throws<mora::ShapeError>({"numbers: expected 2, found 3"},
                                         [&] { tensor.copy_to(std::span<float>(more)); }));
  }
}

// 72
TEST(SafetensorsFile, SaysWhichDtypeIsNotConverted) {
  const SafetensorsFile file(fixture("dtypes"));
  int refused = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    EXPECT_FALSE(tensor.bytes().empty());
    if (mora::is_float(tensor.dtype())) continue;
    ++refused;
    const auto dtype = mora::name_of(tensor.dtype());
    EXPECT_TRUE(throws<FormatError>({"dtypes.safetensors, tensor 't.", "found ", dtype},
                                    [&] { (void)tensor.numbers<float>(); }));
    std::vector<double> mine(std::size_t(tensor.size()));
    EXPECT_TRUE(
        throws<FormatError>({"found ", dtype}, [&] { tensor.copy_to(std::span<double>(mine)); }));
  }
  EXPECT_EQ(refused, 14);
}

// 37, 38
TEST(SafetensorsFile, KeepsNaNInfinityAndSigns) {
  const std::string data("\x01\0\x80\x7f\0\0\x80\xff\0\0\0\x80", 12);
  const SafetensorsFile file =
      in_memory(with_header(R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", data));
  EXPECT_EQ(text_of(file.tensor("t")), data);
  const auto doubles = file.tensor("t").numbers<double>();
  EXPECT_TRUE(std::isnan(doubles.values[0]));
  EXPECT_EQ(doubles.values[1], -infinity<double>);
  EXPECT_TRUE(std::signbit(doubles.values[2]));
}

TEST(SafetensorsFile, StaysUsableWhenItWasMovedFrom) {
  SafetensorsFile file(fixture("shapes"));
  const SafetensorsFile other = std::move(file);
  EXPECT_EQ(file.size(), other.size());
  StoredTensor tensor = other.tensor("nine");
  const StoredTensor same = std::move(tensor);
  EXPECT_EQ(tensor.name(), same.name());
}

// 144, 147
TEST(SafetensorsFile, MayBeWrittenOverWhileItIsRead) {
  const TemporaryFolder folder;
  const std::string old_data(8, 'o');
  const std::string new_data(8, 'n');
  const auto tensor = [](const std::string& data) {
    return std::vector<mora::TensorBytes>{{{"t", Dtype::u8, {8}}, std::as_bytes(std::span(data))}};
  };
  mora::write_safetensors(folder / "file", tensor(old_data));
  const SafetensorsFile mapped(folder / "file");
  const SafetensorsFile copied(folder / "file", FileAccess::copied);
  // What is written comes from what is read.
  mora::write_safetensors(folder / "file", as_bytes(mapped.tensors()), {{"a", "b"}});
  mora::write_safetensors(folder / "file", tensor(new_data));
  EXPECT_EQ(text_of(mapped.tensor("t")), old_data);
  EXPECT_EQ(text_of(copied.tensor("t")), old_data);
  EXPECT_EQ(text_of(SafetensorsFile(folder / "file").tensor("t")), new_data);
  // A copy does not mind what happens to the file itself either.
  const SafetensorsFile copy(folder / "file", FileAccess::copied);
  write_file(folder / "file", "");
  EXPECT_EQ(text_of(copy.tensor("t")), new_data);
}

// 112, 143
TEST(SafetensorsFile, SaysWhichFileCannotBeOpened) {
  const TemporaryFolder folder;
  EXPECT_TRUE(throws<mora::FileError>({"none.safetensors", "No such file"},
                                      [&] { SafetensorsFile(folder / "none.safetensors"); }));
  EXPECT_TRUE(throws<mora::FileError>({folder.where().string(), "Is a directory"},
                                      [&] { SafetensorsFile(folder.where()); }));
  EXPECT_TRUE(throws<mora::FileError>({"File name too long"},
                                      [&] { SafetensorsFile(folder / std::string(5000, 'x')); }));
  for (const char* const name : {"a name with blanks", "\xc3\xa9\xe6\xbc\xa2", "not UTF-8 \xff"}) {
    write_file(folder / name, with_header("{}"));
    EXPECT_EQ(SafetensorsFile(folder / name).size(), 0);
  }
  EXPECT_TRUE(throws<mora::FileError>({"Not a directory"}, [&] {
    SafetensorsFile(path((folder / "a name with blanks").string() + "/"));
  }));
}

}  // namespace
}  // namespace mora_tests
