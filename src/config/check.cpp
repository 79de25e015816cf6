// Settings that depend on each other: what follows from what, and what does not go together.
#include <algorithm>
#include <filesystem>
#include <system_error>

#include "config/assemble.h"
#include "config/field.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {

std::string PadPolicy::text() const {
  switch (mode) {
    case Mode::kPair: return "pair";
    case Mode::kBatch: return "batch";
    case Mode::kFixed: return "fixed:" + std::to_string(length);
  }
  return "";
}

PadPolicy PadPolicy::parse(const std::string& text) {
  PadPolicy policy;
  if (text == "pair") return policy;
  if (text == "batch") {
    policy.mode = Mode::kBatch;
    return policy;
  }
  if (text.compare(0, 6, "fixed:") == 0) {
    const auto length = settings::parse_int(text.substr(6));
    if (length && *length >= 1 && *length <= kMostTokens) {
      policy.mode = Mode::kFixed;
      policy.length = *length;
      return policy;
    }
  }
  fail<ConfigError>("pad: \"", printable(text), "\" is not pair, batch or fixed:N with N from 1 to ", kMostTokens);
}

namespace settings {
namespace {

class Checker {
 public:
  Checker(LoadedConfig& loaded, ConfigUse use, Report& report)
      : partial_(loaded.partial),
        goes_on_(loaded.goes_on),
        config_(loaded.config),
        origins_(loaded.origins),
        use_(use),
        report_(report) {}

  void run() {
    if (!partial_) {
      check_levels();
      check_diffusion();
    }
    check_text();
    check_sample();
    check_machine();
  }

 private:
  // "FILE:LINE: PATH: " of a field.
  std::string place(const std::string& path) const {
    const auto found = origins_.find(path);
    const bool flat = path.find('.') == path.rfind('.') && path.find("_config") == std::string::npos;
    const std::string name = flat ? path.substr(path.find('.') + 1) : path;
    return (found == origins_.end() ? "" : found->second + ": ") + name + ": ";
  }
  bool given(const std::string& path) const { return origins_.count(path) != 0; }
  bool by_flag(const std::string& path) const {
    const auto found = origins_.find(path);
    return found != origins_.end() && found->second.compare(0, 5, "flag ") == 0;
  }
  void problem(const std::string& path, const std::string& text) { report_.problem(place(path) + text); }
  void warn(const std::string& path, const std::string& text) { report_.warnings.push_back(place(path) + text); }

  void check_levels() {
    std::string path = "unet_config";
    for (const UNetConfig& level : config_.model.levels) {
      try {
        parse_micro_conditioning(level.micro_conditioning);
      } catch (const ConfigError& error) {
        problem(path + ".micro_conditioning", error.what());
      }
      check_pretrained(path + ".initialize_inner_with_pretrained", level.initialize_inner_with_pretrained);
      path += ".inner_config";
    }
  }

  void check_pretrained(const std::string& path, const std::string& file) {
    if (file.empty() || use_ == ConfigUse::kInspect || goes_on_) return;
    if (use_ == ConfigUse::kSample) {
      report_.notes.push_back(concat(place(path), "\"", printable(file), "\" is not used in sampling"));
      return;
    }
    std::error_code error;
    const bool is_url = file.find("://") != std::string::npos;
    if (!is_url && !std::filesystem::exists(file, error)) {
      problem(path, concat("there is no file \"", printable(file), "\"; name a checkpoint, or leave it empty"));
    }
  }

  void check_ratio(const std::string& path, const std::vector<double>& ratio) {
    const size_t levels = config_.model.levels.size();
    if (ratio.empty()) return;
    if (levels == 1) {
      problem(path, "only nested models have levels to weigh");
    } else if (ratio.size() != levels) {
      problem(path, concat(ratio.size(), " numbers for ", levels, " levels; one for each is needed, as in ",
                           levels == 2 ? "2:1" : "4:2:1"));
    } else if (std::all_of(ratio.begin(), ratio.end(), [](double part) { return part == 0; })) {
      problem(path, "at least one number must be more than 0");
    }
  }

  void check_diffusion() {
    DiffusionConfig& diffusion = config_.diffusion;
    if (!diffusion.no_use_residual) {
      problem("diffusion_config.no_use_residual",
              "no is not possible: predicting residuals is broken in the reference, no model was trained so");
    }
    check_ratio("diffusion_config.mixed_ratio", diffusion.mixed_ratio);
    check_ratio("diffusion_config.multi_res_weights", diffusion.multi_res_weights);
    if (!diffusion.multi_res_weights.empty() && !diffusion.use_double_loss) {
      warn("diffusion_config.multi_res_weights", "has no effect without use_double_loss");
    }
    SamplerConfig& sampler = diffusion.sampler_config;
    if (sampler.rescale_signal && *sampler.rescale_signal == 0) sampler.rescale_signal.reset();
    if (sampler.schedule_type == ScheduleType::kDdpm && sampler.beta_end <= 0) {
      problem("diffusion_config.sampler_config.beta_end", "must be more than 0");
    }
    if (sampler.schedule_type == ScheduleType::kSigmoid && sampler.sigmoid_start >= sampler.sigmoid_end) {
      problem("diffusion_config.sampler_config.sigmoid_start", "must be less than sigmoid_end");
    }
  }

  void check_text() {
    TextConfig& text = config_.text;
    const bool by_kind = given("text.text_kind");
    if (text.categorical_conditioning && text.use_precomputed_text_embeddings) {
      problem("text.categorical_conditioning", "does not go together with use_precomputed_text_embeddings");
    }
    const auto follow = [&](const char* path, bool on, TextKind kind) {
      if (!on) return;
      if (by_kind && text.kind != kind) problem(path, "yes does not go together with the given text_kind");
      text.kind = kind;
    };
    follow("text.categorical_conditioning", text.categorical_conditioning, TextKind::kClass);
    follow("text.use_precomputed_text_embeddings", text.use_precomputed_text_embeddings, TextKind::kPrecomputed);
    text.categorical_conditioning = text.kind == TextKind::kClass;
    text.use_precomputed_text_embeddings = text.kind == TextKind::kPrecomputed;
    const std::string& url = config_.reader.endpoint_url;
    const size_t host = url.find("://") == std::string::npos ? 0 : url.find("://") + 3;
    if (url.substr(host, url.find('/', host) - host).find('@') != std::string::npos) {
      problem("reader_config.endpoint_url",
              "holds a user or password; those come from the environment or a credentials file");
    }
  }

  void check_sample() {
    SampleConfig& sample = config_.sample;
    if (sample.ddim_eta && sample.sampler != SamplerKind::kDdim) {
      // A flag for the one counts more than a file's word for the other.
      const bool sampler_by_flag = by_flag("sample.sampler"), eta_by_flag = by_flag("sample.ddim_eta");
      if (given("sample.sampler") && sampler_by_flag == eta_by_flag) {
        problem("sample.ddim_eta", concat("belongs to the sampler ddim, but sampler is ", choice_name(sample.sampler)));
      }
      if (sampler_by_flag && !eta_by_flag) {
        sample.ddim_eta.reset();
      } else {
        sample.sampler = SamplerKind::kDdim;
      }
    }
    if (sample.sampler == SamplerKind::kDdim && !sample.ddim_eta) sample.ddim_eta = 0;
    if (sample.guidance_start >= sample.guidance_end) {
      problem("sample.guidance_start", "must be less than guidance_end");
    }
    const size_t negatives = sample.negative_prompts.size();
    if (negatives > 1 && sample.prompts_file.empty() && negatives != sample.prompts.size()) {
      problem("sample.negative_prompt",
              concat(negatives, " texts for ", sample.prompts.size(), " prompts; give one for all, or one each"));
    }
  }

  void check_machine() {
    const std::string& device = config_.runtime.device;
    const bool with_index = device.compare(0, 5, "cuda:") == 0 && device.size() <= 8 && device.size() > 5 &&
                            device.find_first_not_of("0123456789", 5) == std::string::npos;
    if (device != "auto" && device != "cpu" && device != "cuda" && !with_index) {
      problem("runtime.device", concat("\"", printable(device), "\" is not auto, cpu, cuda or cuda:N"));
    }
    if (config_.runtime.loglevel.empty()) return;
    try {
      parse_log_level(config_.runtime.loglevel);
    } catch (const ConfigError& error) {
      problem("runtime.loglevel", error.what());
    }
  }

  const bool partial_;
  const bool goes_on_;
  Config& config_;
  const std::map<std::string, std::string>& origins_;
  const ConfigUse use_;
  Report& report_;
};

}  // namespace

void check_config(LoadedConfig& loaded, ConfigUse use, Report& report) { Checker(loaded, use, report).run(); }

}  // namespace settings
}  // namespace mdm
