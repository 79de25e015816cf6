#include "ingest/fault_report.h"

#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "mdm/data/tsv.h"

namespace mdm::ingest {
namespace {

constexpr size_t kMostNameBytes = size_t{1} << 15;  // no name of a member is longer
constexpr size_t kWaiting = size_t{1} << 16;

std::string tsv_line(const Fault& fault) {
  std::string line = tsv_field(fault.kind);
  for (const std::string* text : {&fault.archive, &fault.file, &fault.what}) {
    line += '\t' + tsv_field(printable(*text, kMostNameBytes));
  }
  return line + '\n';
}

std::string json_line(const Fault& fault) {
  const nlohmann::ordered_json line = {{"kind", fault.kind},
                                       {"archive", printable(fault.archive, kMostNameBytes)},
                                       {"file", printable(fault.file, kMostNameBytes)},
                                       {"what", printable(fault.what, kMostNameBytes)}};
  return line.dump() + '\n';
}

}  // namespace

FaultReport::FaultReport(const std::filesystem::path& file, size_t kept) : kept_(kept) {
  if (file.empty()) return;
  json_ = file.extension() == ".json" || file.extension() == ".jsonl";
  file_ = std::make_unique<AtomicFile>(file);
  if (!json_) waiting_ = "kind\tarchive\tfile\twhat\n";
}

void FaultReport::add(const Fault& fault) {
  ++count_;
  ++kinds_[fault.kind];
  if (first_.size() < kept_) first_.push_back(fault);
  if (!file_) return;
  waiting_ += json_ ? json_line(fault) : tsv_line(fault);
  if (waiting_.size() < kWaiting) return;
  file_->write(waiting_);
  waiting_.clear();
}

void FaultReport::finish() {
  if (!file_) return;
  file_->write(waiting_);
  file_->commit();
  file_.reset();
}

std::string shown_fault(const Fault& fault) {
  std::string text = printable(fault.archive, 1000);
  if (!fault.file.empty()) text += ": " + printable(fault.file, 300);
  return text + ": " + printable(fault.what, 500);
}

}  // namespace mdm::ingest
