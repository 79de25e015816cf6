#include "evaluation/evaluate_settings.h"

#include "evaluation/hugging_face.h"
#include "evaluation/network_weights.h"
#include "mdm/core/error.h"
#include "mdm/evaluation/clip.h"
#include "mdm/evaluation/dinov2.h"
#include "mdm/evaluation/inception.h"

namespace mdm::evaluation {
namespace {

constexpr int64_t kMostPictures = int64_t{1} << 40;
constexpr const char* kMetricNames = "fid, kid, precision_recall, clip, fd_dinov2";

// Everything that the given weights allow.
Metrics possible_metrics(const EvaluateSettings& settings) {
  Metrics metrics;
  metrics.fid = !settings.inception.empty() && !settings.reference.empty();
  metrics.clip = !settings.clip.empty();
  metrics.fd_dinov2 = !settings.dinov2.empty() && !settings.reference.empty();
  return metrics;
}

void require(bool holds, const char* metric, const char* flag) {
  if (!holds) fail<ConfigError>("metrics: ", metric, " needs ", flag, "; see --help");
}

void check(const EvaluateSettings& s, bool samples) {
  const bool statistics = is_statistics_file(s.reference);
  const Metrics& m = s.metrics;
  if (samples && !s.generated.empty()) fail<ConfigError>("give either --checkpoint or --generated, not both");
  if (!samples && s.generated.empty() && s.save_reference.empty()) {
    fail<ConfigError>("nothing to score: give --generated (pictures) or --checkpoint and --prompts; see --help");
  }
  if (samples && s.prompts.empty())
    fail<ConfigError>("prompts: a checkpoint needs captions to draw; give --prompts FILE");
  if (!samples && s.num_samples > 0) fail<ConfigError>("num-samples: belongs to --checkpoint");
  if (!m.any()) {
    fail<ConfigError>(
        "metrics: none can be computed; give --inception FILE (with --reference), --clip FOLDER or "
        "--dinov2 FOLDER (with --reference), or name them with --metrics: ",
        kMetricNames);
  }
  require(!m.any_inception() || !s.inception.empty(), "fid, kid or precision_recall", "--inception FILE");
  require(!m.clip || !s.clip.empty(), "clip", "--clip FOLDER");
  require(!m.fd_dinov2 || !s.dinov2.empty(), "fd_dinov2", "--dinov2 FOLDER");
  require(!(m.any_inception() || m.fd_dinov2) || !s.reference.empty(), "a distance", "--reference");
  require(!(m.kid || m.precision_recall) || !statistics, "kid or precision_recall",
          "pictures as --reference: statistics hold no features");
  if (statistics && !s.save_reference.empty()) fail<ConfigError>("save-reference: the reference is statistics already");
}

}  // namespace

Metrics parse_metrics(const std::string& text) {
  Metrics metrics;
  for (size_t at = 0; at <= text.size();) {
    const size_t stop = std::min(text.find(',', at), text.size());
    const std::string name = text.substr(at, stop - at);
    at = stop + 1;
    if (name == "fid") {
      metrics.fid = true;
    } else if (name == "kid") {
      metrics.kid = true;
    } else if (name == "precision_recall" || name == "prc") {
      metrics.precision_recall = true;
    } else if (name == "clip" || name == "clip_score") {
      metrics.clip = true;
    } else if (name == "fd_dinov2") {
      metrics.fd_dinov2 = true;
    } else {
      fail<ConfigError>("metrics: '", printable(name), "' is none of ", kMetricNames);
    }
  }
  return metrics;
}

std::vector<AppOption> evaluate_options() {
  return {
      {"generated", "DIR", "pictures to score: a folder, lst.json, a tar or a folder of tars, a TSV"},
      {"reference", "DIR", "pictures to compare with, likewise; or statistics, FILE.npz"},
      {"prompts", "FILE", "captions: a text file with one a line, or a TSV with a column caption"},
      {"num-samples", "N", "with --checkpoint: pictures in all (default: one a caption)"},
      {"metrics", "LIST",
       "fid,kid,precision_recall,clip,fd_dinov2 (default: fid, clip, fd_dinov2 as weights are given)"},
      {"inception", "FILE", "weights of FID's Inception-v3: pt_inception-2015-12-05-6726825d.pth, or as safetensors"},
      {"clip", "FOLDER", "a CLIP in Hugging Face's form, or its id (openai/clip-vit-base-patch16)"},
      {"dinov2", "FOLDER", "a DINOv2 in Hugging Face's form, or its id (facebook/dinov2-large)"},
      {"fid-features", "N", "64, 192, 768 or 2048 features of Inception-v3 (default 2048)"},
      {"fid-resize", "HOW", "tf1 (torch-fidelity; default), pytorch-fid or clean (clean-fid)"},
      {"kid-subsets", "N", "of KID (default 100)"},
      {"kid-subset-size", "N", "pictures in each (default 1000)"},
      {"neighbours", "K", "of precision and recall (default 3)"},
      {"save-generated", "FILE", "statistics of the scored pictures, .npz"},
      {"save-reference", "FILE", "statistics of the reference, .npz; may be all that is asked for"},
      {"output", "FILE", "all results and settings as JSON"},
  };
}

EvaluateSettings evaluate_settings(const ParsedCommandLine& line, bool samples) {
  EvaluateSettings s;
  s.generated = line.option("generated");
  s.reference = line.option("reference");
  s.prompts = line.option("prompts");
  s.num_samples = line.whole_number("num-samples", 0, 1, kMostPictures);
  s.inception = line.option("inception");
  s.clip = line.option("clip");
  s.dinov2 = line.option("dinov2");
  s.resize = parse_inception_resize(line.option("fid-resize", inception_resize_name(s.resize)));
  s.width = line.whole_number("fid-features", s.width, 1, 2048);
  if (!InceptionV3::has_width(s.width)) fail<ConfigError>("fid-features: ", s.width, " is none of 64, 192, 768, 2048");
  s.kid_subsets = line.whole_number("kid-subsets", s.kid_subsets, 1, 1000000);
  s.kid_subset_size = line.whole_number("kid-subset-size", s.kid_subset_size, 2, 1000000);
  s.neighbours = line.whole_number("neighbours", s.neighbours, 1, 1000);
  s.output = line.option("output");
  s.save_generated = line.option("save-generated");
  s.save_reference = line.option("save-reference");
  s.metrics = line.has("metrics") ? parse_metrics(line.option("metrics")) : possible_metrics(s);
  check(s, samples);
  return s;
}

bool is_statistics_file(const std::string& reference) { return ends_with(reference, ".npz"); }

ScoringNetworks load_networks(const EvaluateSettings& settings) {
  ScoringNetworks networks;
  networks.inception_resize = settings.resize;
  networks.inception_width = settings.width;
  if (settings.metrics.any_inception()) {
    networks.inception = std::make_shared<InceptionV3>(InceptionV3::load(settings.inception));
  }
  if (settings.metrics.clip) {
    networks.clip = std::make_shared<ClipModel>(
        ClipModel::load(model_folder("clip", settings.clip, "config.json, weights and vocab.json with merges.txt")));
  }
  if (settings.metrics.fd_dinov2) {
    networks.dinov2 =
        std::make_shared<DinoV2>(DinoV2::load(model_folder("dinov2", settings.dinov2, "config.json and weights")));
  }
  return networks;
}

}  // namespace mdm::evaluation
