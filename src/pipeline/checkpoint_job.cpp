#include "mdm/pipeline/checkpoint_job.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/models/unet.h"
#include "mdm/text/joint_encoder.h"

namespace mdm {
namespace {

constexpr int kDamagedExitCode = 3;

// A whole number from an option; ConfigError unless it is one in [least, most].
int64_t number_option(const ParsedCommandLine& command_line, const std::string& name, int64_t least, int64_t most,
                      int64_t otherwise) {
  if (!command_line.has(name)) return otherwise;
  const std::string text = command_line.option(name);
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || errno != 0 || value < least || value > most) {
    fail<ConfigError>("--", name, ": '", printable(text), "' is not a whole number in ", least, "..", most);
  }
  return value;
}

std::optional<at::ScalarType> dtype_option(const ParsedCommandLine& command_line) {
  if (!command_line.has("dtype")) return std::nullopt;
  const std::string text = command_line.option("dtype");
  if (text == "fp32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  if (text == "fp16") return at::kHalf;
  fail<ConfigError>("--dtype: '", printable(text), "' is not one of fp32, bf16, fp16");
}

TensorFile::Options open_options(const ParsedCommandLine& command_line) {
  TensorFile::Options options;
  options.map = !command_line.has("no-mmap");
  if (command_line.has("state-dict")) options.state_dict_path = command_line.option("state-dict");
  return options;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Fresh weights for the config of the command line, with that config inside the file.
void make_fresh(const ParsedCommandLine& command_line, const std::filesystem::path& target) {
  LoadedConfig loaded = command_line.load();
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  if (command_line.config_files.empty()) fail<ConfigError>("init: name the model's config with --config_path FILE");
  Config& config = loaded.config;
  const bool joint = config.text.kind == TextKind::kJoint;
  const int64_t text_width =
      number_option(command_line, "text-width", 0, 65536,
                    joint ? config.text.joint_width : config.model.levels[0].conditioning_feature_dim);
  if (joint && text_width != config.text.joint_width) {
    fail<ConfigError>("--text-width: ", text_width, ", but joint_width is ", config.text.joint_width);
  }
  if (text_width < 0) {
    fail<ConfigError>(
        "init: the config leaves the text's width open; say --text-width N (2048 for flan-t5-xl, 0 for none)");
  }
  config.model.levels[0].conditioning_feature_dim = text_width > 0 ? text_width : -1;
  const bool randomized = command_line.has("randomize");
  const int64_t most = (int64_t{1} << 62) - 1;
  const auto seed = static_cast<uint64_t>(randomized ? number_option(command_line, "randomize", 0, most, 0)
                                                     : number_option(command_line, "seed", 0, most, 0));

  const auto model = make_model(config.model, text_width);
  const at::Generator generator = make_generator(seed);
  model->init({generator, randomized ? LayerInit::kSmallNormal : LayerInit::kZero});
  std::vector<NamedTensor> tensors;
  int64_t parameters = 0;
  for (const auto& item : model->named_parameters()) {
    tensors.push_back({item.key(), item.value()});
    parameters += item.value().numel();
  }
  WriteOptions options;
  options.dtype = dtype_option(command_line);
  std::map<std::string, std::string> items = {{"config", config_to_json(config)}};
  std::vector<TensorSection> sections;
  std::unique_ptr<JointTextEncoder> text_encoder;
  if (joint) {
    text_encoder = JointTextEncoder::make(config.text, config.reader);
    text_encoder->network()->init(generator);
    sections.push_back({kTextEncoderSection, text_encoder->tensors()});
    items[kTextVocabularyItem] = text_encoder->vocabulary();
    for (const auto& item : sections[0].tensors) parameters += item.tensor.numel();
  }
  if (ends_with(target.string(), ".safetensors")) {
    items["format"] = "pt";
    write_safetensors(target, with_sections(tensors, sections), items, options);
  } else if (ends_with(target.string(), ".pth") || ends_with(target.string(), ".pt")) {
    nlohmann::json all = items;
    all["batch_num"] = 0;
    write_pth(target, tensors, all.dump(), options, sections);
  } else {
    fail<ConfigError>("init: ", printable(target.string()), " must end in .pth, .pt or .safetensors");
  }
  std::printf("%s: %s%s with %lld parameters in %zu tensors\n", target.string().c_str(), config.model.kind().c_str(),
              joint ? " and its text encoder" : "", static_cast<long long>(parameters),
              with_sections(tensors, sections).size());
}

void convert(const ParsedCommandLine& command_line, const std::string& from, const std::string& to) {
  ConvertOptions options;
  options.open = open_options(command_line);
  options.dtype = dtype_option(command_line);
  options.max_shard_bytes =
      static_cast<uint64_t>(number_option(command_line, "max-shard-bytes", 1, int64_t{1} << 62, 0));
  const Conversion done = convert_checkpoint(from, to, options);
  std::printf("%s: %zu tensors, %llu bytes of values\n", done.target.string().c_str(), done.tensors,
              static_cast<unsigned long long>(done.bytes));
}

}  // namespace

AppInfo checkpoint_app_info() {
  AppInfo info;
  info.name = "checkpoint";
  info.summary = "Looks into files of weights (.pth, .safetensors), checks them, converts them, makes fresh ones.";
  info.sections = Section::kModel | Section::kDiffusion | Section::kReader | Section::kText;
  info.use = ConfigUse::kInspect;
  info.positionals = "inspect FILE | verify FILE | convert FROM TO | init FILE";
  info.options = {
      {"dtype", "fp32|bf16|fp16", "convert, init: type of the floating-point tensors that are written"},
      {"max-shard-bytes", "N", "convert: TO is a folder of safetensors shards of at most N bytes each"},
      {"state-dict", "KEYS", "where in a .pth the tensors are, e.g. model.state_dict (default: found by itself)"},
      {"no-mmap", "", "read the file instead of mapping it (for file systems where it may shrink meanwhile)"},
      {"text-width", "N", "init: width of the text's features, 2048 for flan-t5-xl, 0 for a model without text"},
      {"seed", "SEED", "init: of the fresh weights (default 0); as torch.manual_seed in the reference"},
      {"randomize", "SEED",
       "init: also draw the layers that start at zero, N(0, 0.6/sqrt(fan-in)); a fresh model's output is exactly zero "
       "otherwise, which is right for training and no use to a comparison"},
  };
  info.examples =
      "  checkpoint inspect vis_model_64x64.pth\n"
      "  checkpoint convert vis_model_64x64.pth vis_model_64x64.safetensors --dtype bf16\n"
      "  checkpoint init fresh.pth --config_path configs/models/cc12m_64x64.yaml --text-width 2048\n";
  return info;
}

namespace {

int run_verb(const ParsedCommandLine& command_line) {
  const auto& words = command_line.positionals;
  const std::string verb = words.empty() ? "" : words[0];
  const auto expect = [&](size_t count, const char* usage) {
    if (words.size() != count + 1) fail<ConfigError>("usage: checkpoint ", usage);
  };
  if (verb == "inspect") {
    expect(1, "inspect FILE");
    const Inspection result = inspect_checkpoint(words[1], open_options(command_line));
    print_inspection(result, std::cout);
    return result.problem.empty() ? 0 : kDamagedExitCode;
  }
  if (verb == "verify") {
    expect(1, "verify FILE");
    const Verification result = verify_checkpoint(words[1], open_options(command_line));
    print_verification(result, std::cout);
    return result.sound() ? 0 : kDamagedExitCode;
  }
  if (verb == "convert") {
    expect(2, "convert FROM TO");
    convert(command_line, words[1], words[2]);
    return 0;
  }
  if (verb == "init") {
    expect(1, "init FILE --config_path CONFIG");
    make_fresh(command_line, words[1]);
    return 0;
  }
  if (verb.empty()) fail<ConfigError>("usage: checkpoint ", checkpoint_app_info().positionals, " (see --help)");
  const std::vector<std::string> verbs = {"inspect", "verify", "convert", "init"};
  const std::string_view near = nearest_name(verb, verbs);
  fail<ConfigError>("'", printable(verb), "' is not one of inspect, verify, convert, init",
                    near.empty() ? "" : concat("; did you mean ", near, "?"));
}

}  // namespace

int run_checkpoint(const ParsedCommandLine& command_line) {
  const int code = run_verb(command_line);
  std::cout.flush();
  if (!std::cout || std::fflush(stdout) != 0) fail<Error>("standard output can't be written");
  return code;
}

}  // namespace mdm
