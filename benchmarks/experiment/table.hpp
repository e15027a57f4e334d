// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "experiment/statistics.hpp"

namespace experiment {

using Cells = std::vector<std::string>;

/// A number as printf writes it.
[[nodiscard]] inline std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

/// 1234567 as 1,234,567.
[[nodiscard]] inline std::string grouped(long long value) {
  std::string text = std::to_string(value);
  for (std::size_t end = text.size(); end > 3; end -= 3) text.insert(end - 3, ",");
  return text;
}

/// mean ± deviation, both with the same printf format.
[[nodiscard]] inline std::string with_spread(const char* format, const Sample& sample) {
  return number(format, sample.mean) + " ± " + number(format, sample.deviation);
}

/// A table on the console: the first column to the left, the others to the right.
class Table {
 public:
  Table(std::string title, Cells header) : title_(std::move(title)), rows_{std::move(header)} {}

  void add(Cells row) { rows_.push_back(std::move(row)); }

  void print(std::ostream& out) const {
    std::vector<std::size_t> widths;
    for (const Cells& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()), 0);
      for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
    }
    out << '\n' << title_ << '\n';
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      for (std::size_t c = 0; c < rows_[r].size(); ++c) {
        const std::string space(widths[c] - width(rows_[r][c]), ' ');
        if (c == 0) {
          out << "  " << rows_[r][c] << (rows_[r].size() > 1 ? space : "");
        } else {
          out << "  " << space << rows_[r][c];
        }
      }
      out << '\n';
      if (r > 0) continue;
      std::size_t total = 0;
      for (const std::size_t w : widths) total += w + 2;
      out << "  " << std::string(total - 2, '-') << '\n';
    }
  }

  /// Characters, not bytes, of UTF-8.
  [[nodiscard]] static std::size_t width(const std::string& text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  }

 private:
  std::string title_;
  std::vector<Cells> rows_;
};

/// Cells by the titles of their row and column, both in the order in which they first came.
class Pivot {
 public:
  void set(const std::string& row, const std::string& column, std::string cell) {
    const std::size_t r = place(rows_, row);
    const std::size_t c = place(columns_, column);
    cells_.resize(rows_.size());
    cells_[r].resize(std::max(cells_[r].size(), c + 1));
    cells_[r][c] = std::move(cell);
  }

  [[nodiscard]] const Cells& rows() const { return rows_; }
  [[nodiscard]] const Cells& columns() const { return columns_; }
  /// The title of a row and its cells.
  [[nodiscard]] Cells line(const std::string& row) const {
    Cells line = {row};
    const auto r = std::find(rows_.begin(), rows_.end(), row) - rows_.begin();
    const Cells& cells = cells_[static_cast<std::size_t>(r)];
    line.insert(line.end(), cells.begin(), cells.end());
    return line;
  }
  [[nodiscard]] Table table(std::string title, const std::string& corner) const {
    Cells header = {corner};
    header.insert(header.end(), columns_.begin(), columns_.end());
    Table table(std::move(title), header);
    for (const std::string& row : rows_) table.add(line(row));
    return table;
  }

 private:
  static std::size_t place(Cells& titles, const std::string& title) {
    const auto found = std::find(titles.begin(), titles.end(), title);
    if (found != titles.end()) return static_cast<std::size_t>(found - titles.begin());
    titles.push_back(title);
    return titles.size() - 1;
  }
  Cells rows_;
  Cells columns_;
  std::vector<Cells> cells_;
};

/// Text in lines of at most 100 characters, after an empty line.
inline void print_paragraph(std::ostream& out, const std::string& text) {
  std::istringstream words(text);
  std::string word;
  std::size_t column = 0;
  out << '\n';
  while (words >> word) {
    const std::size_t width = Table::width(word);
    if (column > 0 && column + 1 + width > 100) {
      out << '\n';
      column = 0;
    }
    out << (column > 0 ? " " : "") << word;
    column += width + (column > 0 ? 1 : 0);
  }
  out << '\n';
}

/// A CSV file. No cell of this benchmark holds a comma or a quote.
class CsvFile {
 public:
  CsvFile(const std::string& path, const Cells& header) : path_(path), file_(path) { add(header); }

  void add(const Cells& row) {
    for (std::size_t c = 0; c < row.size(); ++c) file_ << (c == 0 ? "" : ",") << row[c];
    file_ << '\n';
    if (!file_) throw std::runtime_error("cannot write " + path_);
  }

 private:
  std::string path_;
  std::ofstream file_;
};

}  // namespace experiment
