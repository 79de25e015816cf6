#include "mdm/ingest/stats.h"

#include <algorithm>
#include <array>

#include "ingest/hash_set.h"
#include "ingest/survey.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using ingest::SampleFacts;
using ingest::WalkedArchive;

constexpr std::array<int, 7> kPercentiles = {1, 5, 25, 50, 75, 95, 99};
constexpr std::array<int64_t, 3> kSides = {64, 256, 1024};  // of the published models
constexpr int64_t kThousand = 1000, kTall = 800, kWide = 1250;

// How often each number occurred.
class Counts {
 public:
  void add(int64_t value) {
    ++counts_[value];
    ++all_;
    sum_ += static_cast<double>(value);
  }

  int64_t percentile(int percent) const {
    // The smallest rank that so many percent of all don't exceed.
    const auto rank = std::max<uint64_t>(1, (all_ * static_cast<uint64_t>(percent) + 99) / 100);
    uint64_t seen = 0;
    for (const auto& [value, count] : counts_) {
      seen += count;
      if (seen >= rank) return value;
    }
    return 0;
  }

  Distribution distribution() const {
    Distribution found;
    found.count = all_;
    if (all_ == 0) return found;
    found.least = counts_.begin()->first;
    found.most = counts_.rbegin()->first;
    found.mean = sum_ / static_cast<double>(all_);
    for (const int percent : kPercentiles) found.percentiles[percent] = percentile(percent);
    return found;
  }

  const std::map<int64_t, uint64_t>& all() const { return counts_; }
  double mean() const { return all_ == 0 ? 0 : sum_ / static_cast<double>(all_); }

 private:
  std::map<int64_t, uint64_t> counts_;
  uint64_t all_ = 0;
  double sum_ = 0;
};

class Collector {
 public:
  explicit Collector(const SurveySettings& settings) : settings_(settings) {}

  StatsResult run() {
    const auto count = [this](const Fault& fault) { ++result_.faults[fault.kind]; };
    ingest::SurveyKind kind;
    kind.whole = false;
    result_.stopped = !ingest::survey(settings_, kind, count, [this](const WalkedArchive& archive) { take(archive); });
    finish();
    return std::move(result_);
  }

 private:
  void take(const WalkedArchive& archive) {
    if (!archive.index) return;
    ++result_.archives;
    result_.archive_bytes += archive.bytes();
    ShardStats shard;
    shard.archive = archive.listed->name;
    shard.bytes = archive.bytes();
    Counts sides, points;
    for (const SampleFacts& facts : archive.facts) {
      add(facts);
      ++shard.samples;
      shard.image_bytes += facts.image_bytes;
      points.add(facts.caption_points);
      if (facts.width > 0) {
        sides.add(std::min(facts.width, facts.height));
      } else {
        ++shard.unreadable;
      }
    }
    shard.median_side = sides.percentile(50);
    shard.caption_points = points.mean();
    result_.shards.push_back(std::move(shard));
  }

  void add(const SampleFacts& facts) {
    ++result_.samples;
    add_caption(facts);
    if (facts.width <= 0) {
      ++result_.unreadable;
      return;
    }
    ++result_.formats[image_format_name(facts.format)];
    image_bytes_.add(static_cast<int64_t>(facts.image_bytes));
    smaller_.add(std::min(facts.width, facts.height));
    larger_.add(std::max(facts.width, facts.height));
    const int64_t aspect = (int64_t{facts.width} * kThousand + facts.height / 2) / facts.height;
    aspect_.add(aspect);
    ++(aspect < kTall ? result_.tall : aspect > kWide ? result_.wide : result_.square);
  }

  void add_caption(const SampleFacts& facts) {
    caption_bytes_.add(facts.caption_bytes);
    caption_points_.add(facts.caption_points);
    result_.empty_captions += facts.blank ? 1 : 0;
    result_.repeated_captions += captions_.insert(facts.caption_hash) ? 0 : 1;
    if (facts.tokens < 0) return;
    tokens_.add(facts.tokens);
    result_.cut += facts.tokens > settings_.most_tokens ? 1 : 0;
  }

  void finish() {
    result_.image_bytes = image_bytes_.distribution();
    result_.smaller_side = smaller_.distribution();
    result_.larger_side = larger_.distribution();
    result_.aspect = aspect_.distribution();
    result_.caption_bytes = caption_bytes_.distribution();
    result_.caption_points = caption_points_.distribution();
    result_.tokens = tokens_.distribution();
    for (const int64_t side : kSides) result_.below[side] = 0;
    for (const auto& [side, count] : smaller_.all()) {
      int64_t power = 1;
      while (power * 2 <= side) power *= 2;
      result_.sides[power] += count;
      for (const int64_t limit : kSides) result_.below[limit] += side < limit ? count : 0;
    }
  }

  const SurveySettings& settings_;
  StatsResult result_;
  Counts image_bytes_, smaller_, larger_, aspect_, caption_bytes_, caption_points_, tokens_;
  ingest::HashSet captions_;
};

}  // namespace

StatsResult dataset_stats(const SurveySettings& settings) { return Collector(settings).run(); }

}  // namespace mdm
