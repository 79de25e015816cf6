// Statistics for people and for programs.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "ingest/size_text.h"
#include "mdm/core/error.h"
#include "mdm/ingest/stats.h"

namespace mdm {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBarWidth = 40;
constexpr size_t kNameWidth = 40;

template <typename... Parts>
std::string line(const char* format, Parts... parts) {
  char text[256];
  std::snprintf(text, sizeof text, format, parts...);
  return std::string(text) + '\n';
}

unsigned long long whole(uint64_t number) { return number; }

std::string share(uint64_t part, uint64_t all) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%",
                all == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(all));
  return text;
}

std::string table_head() {
  return line("%-24s %10s %9s %9s %9s %9s %9s %9s %10s", "", "mean", "least", "5 %", "25 %", "median", "75 %", "95 %",
              "most");
}

std::string row(const char* name, const Distribution& d, double unit = 1, int digits = 0) {
  if (d.count == 0) return {};
  const auto number = [&](int percent) { return static_cast<double>(d.percentiles.at(percent)) / unit; };
  return line("%-24s %10.*f %9.*f %9.*f %9.*f %9.*f %9.*f %9.*f %10.*f", name, digits == 0 ? 1 : digits, d.mean / unit,
              digits, static_cast<double>(d.least) / unit, digits, number(5), digits, number(25), digits, number(50),
              digits, number(75), digits, number(95), digits, static_cast<double>(d.most) / unit);
}

std::string histogram(const StatsResult& stats) {
  std::string text = "\nsmaller sides in pixels\n";
  uint64_t most = 1;
  for (const auto& [side, count] : stats.sides) most = std::max(most, count);
  for (const auto& [side, count] : stats.sides) {
    const auto length = static_cast<size_t>(count * kBarWidth / most);
    text += line("  %6lld to %6lld %12llu %8s  %s", static_cast<long long>(side), static_cast<long long>(2 * side - 1),
                 whole(count), share(count, stats.smaller_side.count).c_str(), std::string(length, '#').c_str());
  }
  for (const auto& [side, count] : stats.below) {
    text += line("  below %lld: %llu (%s)", static_cast<long long>(side), whole(count),
                 share(count, stats.smaller_side.count).c_str());
  }
  return text;
}

std::string captions(const StatsResult& stats) {
  std::string text = line("captions: %llu repeat an earlier one (%s), %llu are empty", whole(stats.repeated_captions),
                          share(stats.repeated_captions, stats.samples).c_str(), whole(stats.empty_captions));
  if (stats.tokens.count > 0) {
    text += line("captions: %llu have more tokens than are used (%s)", whole(stats.cut),
                 share(stats.cut, stats.tokens.count).c_str());
  }
  return text;
}

// The end of a long name tells more than its beginning.
std::string short_name(const std::string& name) {
  const std::string shown = printable(name, 1000);
  return shown.size() <= kNameWidth ? shown : "..." + shown.substr(shown.size() - kNameWidth + 3);
}

std::string shards(const StatsResult& stats, size_t most) {
  std::string text = '\n' + line("%-40s %10s %10s %12s %10s %8s %9s", "archive", "samples", "size", "of pictures",
                                 "unreadable", "side", "caption");
  for (size_t i = 0; i < std::min(most, stats.shards.size()); ++i) {
    const ShardStats& shard = stats.shards[i];
    text +=
        line("%-40s %10llu %10s %12s %10llu %8lld %9.1f", printable(short_name(shard.archive)).c_str(),
             whole(shard.samples), ingest::size_text(shard.bytes).c_str(), ingest::size_text(shard.image_bytes).c_str(),
             whole(shard.unreadable), static_cast<long long>(shard.median_side), shard.caption_points);
  }
  if (stats.shards.size() > most) text += line("... and %zu more (--json has all)", stats.shards.size() - most);
  return text;
}

Json json_of(const Distribution& d) {
  Json json = {{"count", d.count}};
  if (d.count == 0) return json;
  json["least"] = d.least;
  json["most"] = d.most;
  json["mean"] = d.mean;
  for (const auto& [percent, value] : d.percentiles) json["percentiles"][std::to_string(percent)] = value;
  return json;
}

template <typename Map>
Json json_of_counts(const Map& counts) {
  Json json = Json::object();
  for (const auto& [key, count] : counts) json[concat(key)] = count;
  return json;
}

}  // namespace

std::string stats_text(const StatsResult& stats, size_t most_shards) {
  std::string text = line("%llu samples in %llu archives (%s)", whole(stats.samples), whole(stats.archives),
                          ingest::size_text(stats.archive_bytes).c_str());
  std::string formats;
  for (const auto& [name, count] : stats.formats) {
    formats += concat(formats.empty() ? "" : ", ", name, ' ', count, " (", share(count, stats.samples), ')');
  }
  if (!formats.empty()) text += concat("formats: ", formats, '\n');
  if (stats.unreadable > 0) text += line("pictures without a readable header: %llu", whole(stats.unreadable));
  if (stats.samples > 0) {
    text += line("shapes: %llu tall, %llu nearly square (4:5 to 5:4), %llu wide", whole(stats.tall),
                 whole(stats.square), whole(stats.wide));
    text += captions(stats);
    text += '\n' + table_head();
    text += row("smaller side", stats.smaller_side) + row("larger side", stats.larger_side);
    text += row("width / height", stats.aspect, 1000, 3) + row("picture's file, KiB", stats.image_bytes, 1024, 1);
    text += row("caption, bytes", stats.caption_bytes) + row("caption, code points", stats.caption_points);
    text += row("caption, tokens", stats.tokens) + histogram(stats) + shards(stats, most_shards);
  }
  for (const auto& [kind, count] : stats.faults) text += line("wrong: %s %llu", kind.c_str(), whole(count));
  return text;
}

std::string stats_json(const StatsResult& stats) {
  Json json;
  json["samples"] = stats.samples;
  json["archives"] = stats.archives;
  json["archive_bytes"] = stats.archive_bytes;
  json["formats"] = json_of_counts(stats.formats);
  json["unreadable"] = stats.unreadable;
  json["image_bytes"] = json_of(stats.image_bytes);
  json["smaller_side"] = json_of(stats.smaller_side);
  json["larger_side"] = json_of(stats.larger_side);
  json["smaller_side_below"] = json_of_counts(stats.below);
  json["smaller_side_from"] = json_of_counts(stats.sides);
  json["aspect_thousandths"] = json_of(stats.aspect);
  json["shapes"] = {{"tall", stats.tall}, {"square", stats.square}, {"wide", stats.wide}};
  json["caption_bytes"] = json_of(stats.caption_bytes);
  json["caption_code_points"] = json_of(stats.caption_points);
  json["caption_tokens"] = json_of(stats.tokens);
  json["captions_cut"] = stats.cut;
  json["captions_empty"] = stats.empty_captions;
  json["captions_repeated"] = stats.repeated_captions;
  json["faults"] = json_of_counts(stats.faults);
  for (const ShardStats& shard : stats.shards) {
    json["shards"].push_back({{"archive", printable(shard.archive, 4096)},
                              {"bytes", shard.bytes},
                              {"samples", shard.samples},
                              {"image_bytes", shard.image_bytes},
                              {"unreadable", shard.unreadable},
                              {"median_side", shard.median_side},
                              {"caption_code_points", shard.caption_points}});
  }
  return json.dump(2) + '\n';
}

}  // namespace mdm
