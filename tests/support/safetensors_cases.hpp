// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "support/tensor_files.hpp"

/// \file
/// Small files, good and bad, numbered as in docs/bad_inputs.md. Tests go through them, and fuzzing
/// starts from them.

namespace mora_tests {

struct FileCase {
  std::string name;
  std::string bytes;
  std::string fault = {};  ///< Part of the message; empty for a file that loads.
};

/// One tensor "t" of 4 bytes, and 4 bytes.
[[nodiscard]] inline std::string one_entry(std::string_view entry) {
  return with_header("{\"t\":" + std::string(entry) + "}", "abcd");
}
[[nodiscard]] inline std::string one_shape(std::string_view shape, std::string_view dtype = "U8",
                                           std::string_view offsets = "[0,4]") {
  return one_entry("{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) +
                   ",\"data_offsets\":" + std::string(offsets) + "}");
}
[[nodiscard]] inline std::string entry_of_bytes(std::string_view name, std::string_view begin,
                                                std::string_view end, std::string_view count) {
  return "\"" + std::string(name) + R"(":{"dtype":"U8","shape":[)" + std::string(count) +
         R"(],"data_offsets":[)" + std::string(begin) + "," + std::string(end) + "]}";
}
[[nodiscard]] inline std::string nested(std::string_view open, std::string_view inner,
                                        std::string_view close, int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  text += inner;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

/// 102: 100,000 tensors, each of which has the same 16 bytes; 6 MB.
[[nodiscard]] inline std::string many_names_on_one_span() {
  std::string json;
  for (int i = 0; i < 100'000; ++i) {
    json += (i == 0 ? "{" : ",") + entry_of_bytes("tensor." + std::to_string(i), "0", "16", "16");
  }
  return json + "}";
}

[[nodiscard]] inline std::vector<FileCase> safetensors_cases() {
  const std::string good = one_shape("[4]");
  const std::string entry = R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  const auto two = [](std::string_view a, std::string_view b, std::string_view data) {
    return with_header("{" + std::string(a) + "," + std::string(b) + "}", data);
  };
  const auto with_length = [](std::uint64_t length, std::string_view rest) {
    return little_endian(length) + std::string(rest);
  };
  using namespace std::string_literals;  // NOLINT
  std::vector<FileCase> cases = {
      {"86 seven bytes", good.substr(0, 7), "expected at least 8 bytes, found 7"},
      {"86 one byte", "{", "expected at least 8 bytes, found 1"},
      {"87 length beyond the file", with_length(100, "{}"), "expected 100 bytes, found 2"},
      {"87 length one too many", with_length(3, "{}"), "expected 3 bytes, found 2"},
      {"87 length 2^64-1", with_length(~0ull, "{}"), "found a length of 18446744073709551615"},
      {"87 length 2^64-8", with_length(~0ull - 7, "{}"), "found a length of 18446744073709551608"},
      {"87 length 2^63", with_length(1ull << 63, "{}"), "found a length of 9223372036854775808"},
      {"87 length 100000001", with_length(100'000'001, "{}"),
       "expected at most 100000000 bytes, found a length of 100000001"},
      {"88 length 0", with_length(0, ""), "header: byte 1: expected JSON"},
      {"88 length 0 with data", with_length(0, "abcd"), "header: byte 1: expected JSON"},
      {"88 blanks alone", with_header("        "), "header: byte 1: expected JSON"},
      {"89 not UTF-8 in a name", with_header("{\"\xff\":" + entry + "}", "abcd"), "invalid string"},
      {"89 overlong UTF-8", with_header("{\"\xc0\xaf\":" + entry + "}", "abcd"), "invalid string"},
      {"89 surrogate in UTF-8", with_header("{\"\xed\xa0\x80\":" + entry + "}", "abcd"),
       "invalid string"},
      {"89 lone surrogate escape", with_header(R"({"\ud800":)" + entry + "}", "abcd"), "surrogate"},
      {"89 low surrogate first", with_header(R"({"\udc00":)" + entry + "}", "abcd"), "surrogate"},
      {"89 byte order mark", with_header("\xef\xbb\xbf{}"), "found a byte order mark"},
      {"89 cut UTF-8", with_header("{\"\xe2\x82\":" + entry + "}", "abcd"), "invalid string"},
      {"90 not JSON", with_header("tensor"), "expected JSON, found"},
      {"90 zero bytes", with_header("\0\0\0\0"s), "found a byte of value 0"},
      {"90 zero byte behind", with_header("{}\0"s), "found a byte of value 0"},
      {"90 zero byte in a name", with_header("{\"a\0b\":"s + entry + "}", "abcd"),
       "found a byte of value 0"},
      {"90 control byte in a name", with_header("{\"a\nb\":" + entry + "}", "abcd"),
       "invalid string"},
      {"90 comment", with_header("{/* none */}"), "expected JSON, found"},
      {"90 comment of a line", with_header("{} // none"), "expected JSON, found"},
      {"90 trailing comma", with_header("{\"t\":" + entry + ",}", "abcd"), "expected JSON, found"},
      {"90 trailing comma in a shape", one_shape("[4,]"), "expected JSON, found"},
      {"90 single quotes", with_header("{'t':" + entry + "}", "abcd"), "expected JSON, found"},
      {"90 NaN", one_shape("[NaN]"), "expected JSON, found"},
      {"90 Infinity", one_shape("[Infinity]"), "expected JSON, found"},
      {"90 leading zero", one_shape("[04]"), "expected JSON, found"},
      {"90 plus sign", one_shape("[+4]"), "expected JSON, found"},
      {"90 hexadecimal", one_shape("[0x4]"), "expected JSON, found"},
      {"90 unfinished", with_header("{\"t\":" + entry, "abcd"), "expected JSON, found"},
      {"91 an array", with_header("[]"), "the header: expected an object, found an array"},
      {"91 a string", with_header("\"t\""), "expected an object, found the string 't'"},
      {"91 a number", with_header("7"), "expected an object, found the number 7"},
      {"91 null", with_header("null"), "expected an object, found null"},
      {"91 true", with_header("true"), "expected an object, found a boolean"},
      {"92 two documents", with_header("{}{}"), "expected JSON, found"},
      {"92 two documents apart", with_header("{}\n{}"), "expected JSON, found"},
      {"92 a letter behind", with_header("{}x"), "expected JSON, found"},
      {"93 deep arrays", with_header(nested("[", "", "]", 200)), "expected an object"},
      {"93 deep in an entry",
       one_entry(entry.substr(0, entry.size() - 1) + ",\"x\":" + nested("[", "", "]", 126) + "}"),
       "expected values at most 127 deep"},
      {"93 deep objects in an entry",
       one_entry(entry.substr(0, entry.size() - 1) + ",\"x\":" + nested("{\"y\":", "1", "}", 126) +
                 "}"),
       "expected values at most 127 deep"},
      {"93 deep in metadata",
       with_header("{\"__metadata__\":{\"x\":" + nested("[", "", "]", 200) + "}}"),
       "expected a string, found an array"},
      {"94 a name twice",
       two(entry_of_bytes("t", "0", "4", "4"), entry_of_bytes("t", "4", "8", "4"), "abcdefgh"),
       "key 't' twice"},
      {"94 a name twice, the same",
       two(entry_of_bytes("t", "0", "4", "4"), entry_of_bytes("t", "0", "4", "4"), "abcd"),
       "key 't' twice"},
      {"94 a name twice by an escape",
       two(entry_of_bytes("ta", "0", "4", "4"), entry_of_bytes(R"(t\u0061)", "4", "8", "4"),
           "abcdefgh"),
       "key 'ta' twice"},
      {"94 metadata twice", with_header(R"({"__metadata__":{"a":"b"},"__metadata__":{}})"),
       "key '__metadata__' twice"},
      {"94 a metadata key twice", with_header(R"({"__metadata__":{"a":"b","a":"b"}})"),
       "key 'a' twice"},
      {"94 dtype twice",
       one_entry(R"({"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]})"),
       "key 'dtype' twice"},
      {"94 shape twice",
       one_entry(R"({"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]})"),
       "key 'shape' twice"},
      {"94 empty shape twice",
       one_entry(R"({"dtype":"F32","shape":[],"shape":[],"data_offsets":[0,4]})"),
       "key 'shape' twice"},
      {"94 an unknown key twice",
       one_entry(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":{"y":1,"y":1}})"),
       "key 'y' twice"},
      {"95 metadata of numbers", with_header(R"({"__metadata__":{"a":1}})"),
       "__metadata__, key 'a': expected a string, found the number 1"},
      {"95 metadata of objects", with_header(R"({"__metadata__":{"a":{}}})"),
       "expected a string, found an object"},
      {"95 metadata of null", with_header(R"({"__metadata__":{"a":null}})"),
       "expected a string, found null"},
      {"95 metadata that is null", with_header(R"({"__metadata__":null})"),
       "'__metadata__': expected an object, found null"},
      {"95 metadata that is a list", with_header(R"({"__metadata__":[]})"),
       "'__metadata__': expected an object, found an array"},
      {"96 no dtype", one_entry(R"({"shape":[4],"data_offsets":[0,4]})"),
       "tensor 't', dtype: expected this key"},
      {"96 no shape", one_entry(R"({"dtype":"U8","data_offsets":[0,4]})"),
       "tensor 't', shape: expected this key"},
      {"96 no data_offsets", one_entry(R"({"dtype":"U8","shape":[4]})"),
       "tensor 't', data_offsets: expected this key"},
      {"96 an empty entry", one_entry("{}"), "tensor 't', dtype: expected this key"},
      {"96 an entry that is null", one_entry("null"), "'t': expected an object, found null"},
      {"96 an entry that is a list", one_entry("[]"), "'t': expected an object, found an array"},
      {"96 an entry that is a string", one_entry("\"U8\""),
       "'t': expected an object, found the string 'U8'"},
      {"97 one offset", one_shape("[4]", "U8", "[4]"), "data_offsets: expected 2 numbers, found 1"},
      {"97 no offset", one_shape("[4]", "U8", "[]"), "data_offsets: expected 2 numbers, found 0"},
      {"97 three offsets", one_shape("[4]", "U8", "[0,4,4]"),
       "data_offsets: expected 2 numbers, found more"},
      {"97 offsets as a string", one_shape("[4]", "U8", "\"0,4\""),
       "data_offsets: expected an array of numbers, found the string"},
      {"97 offsets of strings", one_shape("[4]", "U8", R"(["0","4"])"), "found the string '0'"},
      {"97 shape as a string", one_shape("\"4\""), "shape: expected an array of numbers"},
      {"97 shape null", one_shape("null"), "shape: expected an array of numbers, found null"},
      {"97 shape an object", one_shape("{}"), "shape: expected an array of numbers"},
      {"97 shape of arrays", one_shape("[[4]]"), "shape: expected whole numbers"},
      {"97 shape of objects", one_shape(R"([{"a":1}])"), "shape: expected whole numbers"},
      {"97 shape of null", one_shape("[null]"), "found null"},
      {"97 shape of true", one_shape("[true]"), "found a boolean"},
      {"97 dtype a number", one_entry(R"({"dtype":8,"shape":[4],"data_offsets":[0,4]})"),
       "dtype: expected a string, found the number 8"},
      {"98 negative", one_shape("[-4]"), "found the number -4"},
      {"98 minus zero", one_shape("[4,-0]", "U8", "[0,0]"), "found the number -0"},
      {"98 negative offset", one_shape("[4]", "U8", "[-4,0]"), "found the number -4"},
      {"98 2.5", one_shape("[2.5]"), "found the number 2.5"},
      {"98 4.0", one_shape("[4.0]"), "found the number 4.0"},
      {"98 1.6e1", one_shape("[1.6e1]"), "found the number 1.6e1"},
      {"98 4e0", one_shape("[4e0]"), "found the number 4e0"},
      {"98 1e400", one_shape("[1e400]"), "expected JSON, found"},
      {"98 2^53+1", one_shape("[9007199254740993]"), "expected 9007199254740993 bytes"},
      {"98 2^63", one_shape("[9223372036854775808]"), "found the number 9223372036854775808"},
      {"98 2^64", one_shape("[18446744073709551616]"), "found the number 18446744073709551616"},
      {"98 an end of 2^64+4", one_shape("[4]", "U8", "[0,18446744073709551620]"),
       "found the number 18446744073709551620"},
      {"98 an end of 2^53+1", one_shape("[4]", "U8", "[0,9007199254740993]"),
       "expected an end of at most 4, found 9007199254740993"},
      {"98 an end of 2^63-1", one_shape("[4]", "U8", "[0,9223372036854775807]"),
       "expected an end of at most 4, found 9223372036854775807"},
      {"99 begin behind end", one_shape("[4]", "U8", "[4,0]"),
       "expected begin <= end, found 4 and 0"},
      {"99 begin at 2^63-1", one_shape("[4]", "U8", "[9223372036854775807,4]"),
       "expected begin <= end, found 9223372036854775807 and 4"},
      {"100 end behind the buffer", one_shape("[5]", "U8", "[0,5]"),
       "expected an end of at most 4, found 5"},
      {"101 first not at 0", with_header("{" + entry_of_bytes("t", "1", "4", "3") + "}", "abcd"),
       "tensor 't': data_offsets: expected a begin of 0"},
      {"101 hole",
       two(entry_of_bytes("a", "0", "3", "3"), entry_of_bytes("b", "4", "8", "4"), "abcdefgh"),
       "tensor 'b': data_offsets: expected a begin of 3, where tensor 'a' ends, found 4 (hole)"},
      {"101 overlap",
       two(entry_of_bytes("a", "0", "5", "5"), entry_of_bytes("b", "4", "8", "4"), "abcdefgh"),
       "tensor 'b': data_offsets: expected a begin of 5, where tensor 'a' ends, found 4 (overlap)"},
      {"101 one span for two",
       two(entry_of_bytes("a", "0", "4", "4"), entry_of_bytes("b", "0", "4", "4"), "abcd"),
       "tensor 'b': data_offsets: expected a begin of 4, where tensor 'a' ends, found 0 (overlap)"},
      {"101 bytes of nobody", with_header("{}", "abcd"), "expected 10 bytes as the header says"},
      {"103 product of 0", one_shape("[4294967296,4294967296]"), "expected less than 2^64 numbers"},
      {"103 product of 0 with 0 behind", one_shape("[4294967296,4294967296,0]", "U8", "[0,0]"),
       "expected less than 2^64 numbers"},
      {"103 product of 4", one_shape("[4,4294967297,4294967297]"), "expected less than 2^64"},
      {"104 bits wrap to 32", one_shape("[576460752303423489]", "F32"),
       "expected less than 2^64 bits"},
      {"104 bits wrap to 0", one_shape("[2305843009213693952]"), "expected less than 2^64 bits"},
      {"104 sum near 2^64",
       two(entry_of_bytes("a", "0", "9223372036854775807", "9223372036854775807"),
           entry_of_bytes("b", "9223372036854775807", "9223372036854775807", "0"), "abcd"),
       "expected"},
      {"105 shape and offsets differ", one_shape("[3]"),
       "tensor 't': data_offsets: expected 3 bytes for U8 of shape [3], found 4"},
      {"105 half a number", one_shape("[1]", "F64"), "expected 8 bytes for F64"},
      {"105 six bits", one_shape("[5]", "F6_E2M3"), "expected whole bytes, found 30 bits"},
      {"105 half a byte", one_shape("[7]", "F4"), "expected whole bytes, found 28 bits"},
      {"106 truncated by 1", good.substr(0, good.size() - 1),
       "expected an end of at most 3, found 4: the file has 64 bytes instead of at least 65"},
      {"106 truncated by a tensor",
       two(entry_of_bytes("a", "0", "4", "4"), entry_of_bytes("b", "4", "8", "4"), "abcd"),
       "tensor 'b': data_offsets: expected an end of at most 4, found 8"},
      {"106 one byte too many", good + "e",
       "expected 65 bytes as the header says (61 of it, 4 of tensors), found 66"},
      {"106 a ZIP behind", good + "PK\x03\x04", "found 69"},
      {"106 an ELF behind",
       good + "\x7f"
              "ELF",
       "found 69"},
      {"107 no numbers and a span", one_shape("[0]"), "expected 0 bytes"},
      {"107 no numbers and a span outside", one_shape("[0]", "U8", "[8,8]"),
       "expected an end of at most 4, found 8"},
      {"107 no numbers in the middle of another",
       two(entry_of_bytes("a", "0", "4", "4"), entry_of_bytes("b", "2", "2", "0"), "abcd"),
       "tensor 'b': data_offsets: expected a begin of 4"},
      {"73 an unknown dtype", one_shape("[1]", "F33"), "found the string 'F33'"},
      {"73 a dtype in lower case", one_shape("[1]", "f32"), "found the string 'f32'"},
      {"73 no dtype at all", one_shape("[1]", ""), "found the string ''"},

      {"108 nothing", with_header("{}")},
      {"108 metadata alone", with_header(R"({"__metadata__":{"format":"pt"}})")},
      {"108 empty metadata", with_header(R"({"__metadata__":{}})")},
      {"108 a single number", one_shape("[]", "F32")},
      {"108 no numbers",
       with_header(R"({"t":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]}})")},
      {"108 no numbers of 2^53+1",
       with_header(R"({"t":{"dtype":"F32","shape":[0,9007199254740993],"data_offsets":[0,0]}})")},
      {"108 no numbers between",
       two(entry_of_bytes("a", "0", "4", "4"), entry_of_bytes("b", "4", "4", "0"), "abcd")},
      {"108 no numbers twice in one place",
       two(entry_of_bytes("a", "0", "0", "0"), entry_of_bytes("b", "0", "0", "0"), "")},
      {"108 rank 9", one_shape("[1,2,1,1,2,1,1,1,1]")},
      {"108 leading and trailing blanks",
       with_header(" \t\r\n{\"t\":" + entry + "} \n\t\r  ", "abcd")},
      {"108 blanks inside",
       one_entry("{ \"dtype\" : \"U8\",\n\"shape\" : [ 4 ] ,\t\"data_offsets\":[0 , 4]}")},
      {"108 unknown keys",
       one_entry(R"({"x":[1,{"y":null}],"dtype":"U8","shape":[4],"data_offsets":[0,4],"z":-2.5})")},
      {"108 unknown keys that are known elsewhere",
       one_entry(
           R"({"x":{"shape":[2],"dtype":7,"data_offsets":null},"dtype":"U8","shape":[4],"data_offsets":[0,4]})")},
      {"108 keys in another order",
       one_entry(R"({"data_offsets":[0,4],"shape":[4],"dtype":"U8"})")},
      {"108 tensors in another order",
       two(entry_of_bytes("b", "4", "8", "4"), entry_of_bytes("a", "0", "4", "4"), "abcdefgh")},
      {"108 metadata last", two("\"t\":" + entry, R"("__metadata__":{"a":"b"})", "abcd")},
      {"108 U8 before F32",
       two(entry_of_bytes("a", "0", "1", "1"),
           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]})", "abcde")},
      {"108 NaN", with_header(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                              "\x01\0\x80\x7f\xff\xff\xff\xff"s)},
      {"108 an empty name", with_header("{\"\":" + entry + "}", "abcd")},
      {"108 a name with a slash", with_header("{\"a/../b\":" + entry + "}", "abcd")},
      {"108 a name with a zero", with_header(R"({"a\u0000b":)" + entry + "}", "abcd")},
      {"108 a name of other letters",
       with_header("{\"\xc3\xa9\xf0\x9f\x98\x80\\ud83d\\ude00\":" + entry + "}", "abcd")},
      {"108 deep, but not too deep",
       one_entry(entry.substr(0, entry.size() - 1) + ",\"x\":" + nested("[", "", "]", 125) + "}")},
      {"108 four bits", one_shape("[8]", "F4")},
      {"108 six bits",
       with_header(R"({"t":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[0,3]}})", "abc")},
  };
  for (const auto& row : mora::detail::dtype_rows) {
    const std::string bytes = std::to_string(row.bits);  // of 8 numbers
    cases.push_back({"108 dtype " + std::string(row.name),
                     with_header("{\"t\":{\"dtype\":\"" + std::string(row.name) +
                                     "\",\"shape\":[8],\"data_offsets\":[0," + bytes + "]}}",
                                 std::string(std::size_t(row.bits), '\x3d'))});
  }
  return cases;
}

[[nodiscard]] inline std::vector<FileCase> index_cases() {
  const auto map = [](std::string_view file) {
    return R"({"weight_map":{"a":"one","b":)" + std::string(file) + "}}";
  };
  const std::string plain = "tensor 'b': expected the name of a file in this folder, found";
  return {
      {"137 upwards", map(R"("../x")"), plain},
      {"137 absolute", map(R"("/etc/passwd")"), plain},
      {"137 down and up", map(R"("a/../../b")"), plain},
      {"137 down", map(R"("a/b")"), plain},
      {"137 a drive", map(R"("C:\\x")"), plain},
      {"137 a drive alone", map(R"("C:x")"), plain},
      {"137 a host", map(R"("\\\\host\\x")"), plain},
      {"137 nothing", map(R"("")"), plain + " none"},
      {"137 here", map(R"(".")"), plain + " '.'"},
      {"137 the parent", map(R"("..")"), plain + " '..'"},
      {"137 a zero", map(R"("a\u0000")"), plain + " 'a\\x00'"},
      {"137 a line", map(R"("a\nb")"), plain},
      {"137 a long name", map("\"" + std::string(5000, 'x') + "\""), plain + " 5000 bytes"},
      {"137 null", map("null"), "expected the name of a file, found null"},
      {"137 a list", map(R"(["one"])"), "expected the name of a file, found an array"},
      {"137 an object", map(R"({"one":1})"), "expected the name of a file, found an object"},
      {"137 a number", map("1"), "expected the name of a file, found the number 1"},
      {"141 empty", "", "index: byte 1: expected JSON"},
      {"141 an array", "[]", "the index: expected an object, found an array"},
      {"141 a string", "\"weight_map\"", "expected an object, found the string"},
      {"141 no map", R"({"metadata":{"total_size":8}})", "expected a key 'weight_map'"},
      {"141 a map that is null", R"({"weight_map":null})", "weight_map: expected an object"},
      {"141 a map that is a list", R"({"weight_map":["a"]})", "weight_map: expected an object"},
      {"141 a tensor twice", R"({"weight_map":{"a":"one","\u0061":"two"}})", "key 'a' twice"},
      {"141 the map twice", R"({"weight_map":{"a":"one"},"weight_map":{"a":"one"}})",
       "key 'weight_map' twice"},
      {"141 another key twice", R"({"weight_map":{},"x":[{"y":1,"y":2}]})", "key 'y' twice"},
      {"141 deep", R"({"weight_map":{},"x":)" + nested("[", "", "]", 200) + "}",
       "expected values at most 127 deep"},
      {"141 not UTF-8", "{\"weight_map\":{\"\xff\":\"one\"}}", "invalid string"},
      {"141 two documents", R"({"weight_map":{}}{})", "expected JSON"},
      {"141 a byte order mark", "\xef\xbb\xbf{\"weight_map\":{}}", "byte order mark"},
      {"good, two files", map("\"two\"")},
      {"good, no tensors", R"({"weight_map":{}})"},
      {"good, as transformers writes it",
       "{\n  \"metadata\": {\n    \"total_size\": 12\n  },\n  \"weight_map\": {\n    \"a\": "
       "\"one\",\n    \"b\": \"two\"\n  }\n}\n"},
      {"good, more metadata",
       R"({"metadata":{"total_size":12,"total_parameters":3,"x":[{}]},"weight_map":{"a":"one"},"y":1.5})"},
      {"140 total_size 1.5", R"({"metadata":{"total_size":1.5},"weight_map":{}})"},
      {"140 total_size 2^64",
       R"({"metadata":{"total_size":18446744073709551616},"weight_map":{}})"},
      {"140 total_size null", R"({"metadata":{"total_size":null},"weight_map":{}})"},
      {"140 metadata a string", R"({"metadata":"none","weight_map":{}})"},
      {"good, names that look odd", R"({"weight_map":{"":"...","a":" b c.d","b":"\u00e9"}})"},
  };
}

}  // namespace mora_tests
