#include "evaluation/report.h"

#include <cstdio>

#include "evaluation/hugging_face.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/version.h"
#include "mdm/evaluation/clip.h"
#include "mdm/evaluation/dinov2.h"
#include "mdm/evaluation/feature_sets.h"

namespace mdm::evaluation {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kDinoName = "fd_dinov2";

Json weights_json(const std::vector<std::filesystem::path>& files) {
  Json list = Json::array();
  for (const auto& file : files) list.push_back({{"file", file.string()}, {"sha256", digest_file(file).hex}});
  return list;
}

Json hugging_face_json(const std::string& flag, const std::string& model) {
  return weights_json(model_weight_files(model_folder(flag, model, "weights")));
}

Json set_json(const ScoredSet& set) {
  Json json = {{"source", set.source}};
  if (set.scores != nullptr) {
    json["pictures"] = set.scores->count();
    json["broken"] = set.scores->broken();
    if (set.scores->broken() > 0) json["broken_pictures"] = set.scores->broken_pictures();
  } else {
    for (const auto& [name, statistics] : *set.statistics) {
      json[name.empty() ? "pictures" : name + ".pictures"] = statistics.count > 0 ? Json(statistics.count) : Json();
    }
  }
  return json;
}

std::string counts(int64_t generated, int64_t reference) {
  return concat(generated, " against ", reference > 0 ? concat(reference) : std::string("an unknown number of"),
                " pictures");
}

}  // namespace

int64_t ScoredSet::count(const char* name) const {
  if (scores != nullptr) return scores->count();
  for (const auto& [key, one] : *statistics) {
    if (key == name) return one.count;
  }
  return 0;
}

FeatureStatistics ScoredSet::features(const std::string& name) const {
  if (scores != nullptr) return name.empty() ? scores->inception() : scores->dinov2();
  for (const auto& [key, one] : *statistics) {
    if (key == name) return one;
  }
  fail<DataError>(printable(source, 1000), ": has no statistics of ", name.empty() ? "Inception-v3" : "DINOv2");
}

Report::Report(const EvaluateSettings& settings, const ScoringNetworks& networks, uint64_t seed)
    : settings_(settings), networks_(networks), seed_(seed) {
  json_["program"] = concat("libmdm ", version(), " evaluate");
  json_["results"] = Json::object();
  json_["warnings"] = Json::array();
  describe_networks();
}

void Report::describe_networks() {
  Json& networks = json_["networks"] = Json::object();
  if (networks_.inception) {
    networks["inception"] = {{"weights", weights_json({settings_.inception})},
                             {"features", settings_.width},
                             {"resize", inception_resize_name(settings_.resize)}};
  }
  if (networks_.clip) {
    networks["clip"] = {{"weights", hugging_face_json("clip", settings_.clip)},
                        {"network", networks_.clip->description()},
                        {"resize", "smaller side by Pillow's bicubic, middle square"},
                        {"tokens", networks_.clip->most_tokens()}};
  }
  if (networks_.dinov2) {
    networks["dinov2"] = {{"weights", hugging_face_json("dinov2", settings_.dinov2)},
                          {"network", networks_.dinov2->description()},
                          {"features", networks_.dinov2->width()},
                          {"resize", concat(DinoV2::kSide, " x ", DinoV2::kSide, " by Pillow's bicubic")}};
  }
  json_["decoding"] = "RGB; alpha dropped, EXIF orientation ignored";
}

void Report::warn(const std::string& text) {
  log_warning(text);
  json_["warnings"].push_back(text);
}

void Report::add(const std::string& name, double value, const std::string& remarks) {
  results_.push_back({name, value, remarks});
  json_["results"][name] = value;
}

void Report::compute(const ScoredSet& generated, const ScoredSet* reference) {
  json_["generated"] = set_json(generated);
  if (reference != nullptr) {
    json_["reference"] = set_json(*reference);
    compare(generated, *reference);
  }
  for (const ScoredSet* set : {&generated, reference}) {
    if (set == nullptr || set->scores == nullptr || set->scores->broken() == 0) continue;
    warn(concat(set->scores->broken(), " pictures of ", printable(set->source, 1000),
                " could not be read; the numbers are of the other ", set->scores->count()));
  }
  if (!settings_.metrics.clip) return;
  const int64_t cut = generated.scores->cut_captions();
  add("clip_score", generated.scores->clip_score(),
      concat(networks_.clip->description(), ", ", generated.scores->count(), " pictures"));
  json_["networks"]["clip"]["cut_captions"] = cut;
  if (cut > 0) warn(concat(cut, " captions have more than ", networks_.clip->most_tokens(), " tokens and were cut"));
}

void Report::compare(const ScoredSet& generated, const ScoredSet& reference) {
  const Metrics& metrics = settings_.metrics;
  const auto distance = [&](const std::string& key, const char* name) {
    const FeatureStatistics a = generated.features(key), b = reference.features(key);
    for (const auto& [set, one] : {std::make_pair(&generated, &a), std::make_pair(&reference, &b)}) {
      const std::string warning = small_set_warning(one->count, one->width());
      if (!warning.empty()) warn(concat(name, ": ", printable(set->source, 1000), ": ", warning));
    }
    add(name, frechet_distance(a, b), concat(a.width(), " features, ", counts(a.count, b.count)));
  };
  if (metrics.fid) distance("", "fid");
  if (metrics.kid) {
    const KernelDistance kid =
        kernel_distance(generated.scores->inception_features(), reference.scores->inception_features(),
                        settings_.kid_subsets, settings_.kid_subset_size, seed_);
    const std::string remarks = concat(kid.subsets, kid.subsets == 1 ? " subset of " : " subsets of ", kid.subset_size);
    add("kid", kid.mean, remarks);
    add("kid_deviation", kid.deviation, remarks);
    json_["kid"] = {{"subsets", kid.subsets}, {"subset_size", kid.subset_size}, {"seed", seed_}};
  }
  if (metrics.precision_recall) {
    const PrecisionRecall both = precision_recall(generated.scores->inception_features(),
                                                  reference.scores->inception_features(), settings_.neighbours);
    const std::string remarks = concat(settings_.neighbours, " neighbours, ", settings_.width, " features");
    add("precision", both.precision, remarks);
    add("recall", both.recall, remarks);
    json_["precision_recall"] = {{"neighbours", settings_.neighbours}, {"features", settings_.width}};
  }
  if (metrics.fd_dinov2) distance(kDinoName, kDinoName);
}

std::string Report::table() const {
  std::string text;
  for (const Result& result : results_) {
    char line[64];
    std::snprintf(line, sizeof line, "%-14s %14.6g   ", result.name.c_str(), result.value);
    text += line + result.remarks + "\n";
  }
  return text;
}

std::string Report::json_text() const { return json_.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

}  // namespace mdm::evaluation
