// SPDX-License-Identifier: MIT
#pragma once

#include <initializer_list>
#include <ostream>
#include <string_view>

#include "mora/train/hooks.hpp"
#include "mora/train/number_text.hpp"

namespace mora::inline MORA_ABI {

/// Whether a table is begun, or goes on in a file that has its header already.
enum class CsvHeader { write, leave_out };

namespace detail {

/// A table on a stream that stays the caller's. Every row is flushed, so that a run that is killed
/// leaves whole rows. Throws Error when the stream fails (a full disk).
class CsvTable {
 public:
  CsvTable(std::ostream& out, std::string_view columns, CsvHeader header)
      : out_(&out), columns_(columns), header_(header) {}

  /// Each part is something to write.
  template <class... Parts>
  void write_row(const Parts&... parts) {
    if (header_ == CsvHeader::write) *out_ << columns_ << '\n';
    header_ = CsvHeader::leave_out;
    const char* separator = "";
    ((*out_ << separator << parts, separator = ","), ...);
    *out_ << '\n';
    out_->flush();
    if (!*out_) throw Error("csv log: the stream cannot be written to");
  }

 private:
  std::ostream* out_;
  std::string_view columns_;
  CsvHeader header_;
};

}  // namespace detail

/// A row for every step, numbers such that they read back as the same ones.
class CsvLog {
 public:
  explicit CsvLog(std::ostream& out, CsvHeader header = CsvHeader::write)
      : table_(out, "step,loss,factor,gradient_norm,targets,tokens,skipped", header) {}

  void on_step(const StepInfo& info) {
    using Text = detail::NumberText;
    table_.write_row(Text(info.state.step), Text(info.loss), Text(info.factor),
                     Text(info.gradient_norm), Text(info.targets), Text(info.tokens),
                     info.skipped() ? '1' : '0');
  }

 private:
  detail::CsvTable table_;
};

/// A row for every evaluation; the name of the evaluator has no commas or quotes.
class EvaluationCsvLog {
 public:
  explicit EvaluationCsvLog(std::ostream& out, CsvHeader header = CsvHeader::write)
      : table_(out, "step,evaluation,loss,targets", header) {}

  void on_evaluation(const EvaluationInfo& info) {
    using Text = detail::NumberText;
    if (info.name.find_first_of(",\"\n") != std::string_view::npos) {
      throw ArgumentError(
          detail::concat("csv log: the name of an evaluation has a comma, quote or "
                         "line break: ",
                         info.name));
    }
    table_.write_row(Text(info.state.step), info.name, Text(info.loss.mean()),
                     Text(info.loss.count));
  }

 private:
  detail::CsvTable table_;
};

}  // namespace mora::inline MORA_ABI
