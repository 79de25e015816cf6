#include "mdm/ingest/verify.h"

#include <algorithm>
#include <utility>

#include "ingest/fault_report.h"
#include "ingest/hash_set.h"
#include "ingest/survey.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using ingest::FaultReport;
using ingest::HashSet;
using ingest::Listing;
using ingest::WalkedArchive;

std::string whole_path(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

uint64_t hash_of_row(const fs::path& archive, std::string_view file) {
  return ingest::hash_of(sha256_hex(concat(whole_path(archive), '\n', file)));
}

// Hashes of the rows of a list of a scraped folder.
HashSet rows_of(const fs::path& list, const ingest::FaultSink& sink, const ingest::FaultSink& twice) {
  HashSet rows;
  Listing listing({}, sink);
  std::error_code ignored;
  if (fs::exists(list, ignored)) listing.add(list.string());
  for (const auto& archive : listing.archives()) {
    for (const auto& row : archive.rows) {
      if (rows.insert(hash_of_row(archive.path, archive.file(row)))) continue;
      twice({"split", list.string(), std::string(archive.file(row)), "stands there twice"});
    }
  }
  return rows;
}

class Verification {
 public:
  explicit Verification(const VerifySettings& settings)
      : settings_(settings), report_(settings.report, settings.shown) {
    const auto& lists = settings.survey.lists;
    scraped_ = !lists.empty() && std::all_of(lists.begin(), lists.end(), ingest::is_scraped);
    sink_ = [this](Fault fault) { report_.add(fault); };
  }

  VerifyResult run() {
    read_parts();
    ingest::SurveyKind kind;
    kind.unlisted = settings_.whole || scraped_;
    result_.stopped =
        !ingest::survey(settings_.survey, kind, sink_, [this](const WalkedArchive& archive) { take(archive); });
    report_.finish();
    result_.faults = report_.kinds();
    result_.first = report_.first();
    return std::move(result_);
  }

 private:
  // train.tsv and validation.tsv of a scraped folder.
  struct Parts {
    HashSet train, validation;
  };

  void read_parts() {
    if (!scraped_) return;
    for (const auto& list : settings_.survey.lists) {
      const fs::path folder = fs::path(ingest::list_of(list)).parent_path();
      parts_.push_back({rows_of(folder / "train.tsv", sink_, sink_), rows_of(folder / "validation.tsv", sink_, sink_)});
    }
  }

  void take(const WalkedArchive& archive) {
    ++result_.archives;
    if (archive.index) ++result_.readable_archives;
    result_.archive_bytes += archive.bytes();
    result_.samples += archive.samples.size() + archive.lost;
    for (size_t i = 0; i < archive.samples.size(); ++i) {
      const auto& facts = archive.facts[i];
      const bool unique = check_key(archive, i);
      const bool divided = check_parts(archive, i);
      result_.sound += facts.sound && unique && divided ? 1 : 0;
      result_.cut += facts.tokens > settings_.survey.most_tokens ? 1 : 0;
    }
  }

  bool check_key(const WalkedArchive& archive, size_t i) {
    if ((!settings_.whole && !scraped_) || !archive.samples[i].duplicate.empty()) return true;
    uint64_t key = archive.facts[i].key_hash;
    // Keys of scraped folders are numbers of rows: each folder has its own.
    if (!settings_.whole) key ^= ingest::hash_of(sha256_hex(whole_path(archive.listed->path.parent_path())));
    if (keys_.insert(key)) return true;
    report_.add({"duplicate", archive.listed->name, std::string(archive.samples[i].file),
                 "its key stood before, in this archive or another"});
    return false;
  }

  bool check_parts(const WalkedArchive& archive, size_t i) {
    if (parts_.empty() || !archive.samples[i].duplicate.empty()) return true;
    const uint64_t hash = hash_of_row(archive.listed->path, archive.samples[i].file);
    int found = 0;
    for (const Parts& parts : parts_) {
      found += (parts.train.contains(hash) ? 1 : 0) + (parts.validation.contains(hash) ? 1 : 0);
    }
    if (found == 1) return true;
    report_.add(
        {"split", archive.listed->name, std::string(archive.samples[i].file),
         found == 0 ? "it is neither in train.tsv nor in validation.tsv" : "it is in train.tsv and in validation.tsv"});
    return false;
  }

  const VerifySettings& settings_;
  FaultReport report_;
  ingest::FaultSink sink_;
  bool scraped_ = false;  // all lists are folders of `scrape`
  HashSet keys_;
  std::vector<Parts> parts_;
  VerifyResult result_;
};

}  // namespace

uint64_t VerifyResult::all_faults() const {
  uint64_t all = 0;
  for (const auto& [kind, count] : faults) all += count;
  return all;
}

VerifyResult verify_dataset(const VerifySettings& settings) { return Verification(settings).run(); }

}  // namespace mdm
