// What an outside project does to train a model of its own: config, data and text encoder in, a run folder out.
// usage: train CONFIG.yaml LIST FOLDER STEPS
// Started again with the same folder it goes on from the last checkpoint, here with more STEPS.
#include <mdm/config/config.h>
#include <mdm/models/unet.h>
#include <mdm/text/text_encoder.h>
#include <mdm/training/data_sources.h>
#include <mdm/training/starting_point.h>
#include <mdm/training/trainer.h>

#include <iostream>
#include <memory>
#include <string>

namespace {

int train(const std::string& yaml, const std::string& list, const std::string& folder, const std::string& steps) {
  constexpr uint64_t kSeed = 1;
  const mdm::Config config =
      mdm::load_config({yaml}, {{"file_list", list}, {"num_training_steps", steps}}, mdm::ConfigUse::kTrain);

  mdm::TextEncoderOptions text_options;
  text_options.training = true;
  const auto encoder = mdm::make_text_encoder(config.text, config.reader, text_options);
  const auto tokenizer = mdm::make_tokenizer(config.text, "");
  const auto model = mdm::make_model(config.model, encoder->width(), {at::kFloat, /*channels_last=*/true});

  mdm::RunDirectory run(folder, {config.trainer.keep_last, config.trainer.keep_every});
  const auto saved = run.latest();
  if (!saved) mdm::set_starting_point(config, kSeed, *model, encoder.get());

  mdm::LoaderBatches data(mdm::open_data(list, config, tokenizer.get(), kSeed, config.trainer.batch_size),
                          mdm::loader_options(config, kSeed, encoder.get()));
  mdm::EncoderText text(*encoder, config);

  mdm::TrainerParts parts;
  parts.model = model.get();
  parts.data = &data;
  parts.text = &text;
  parts.run = &run;
  parts.on_step = [](const mdm::StepReport& report) {
    std::cout << "step " << report.step << ": loss " << report.loss << "\n";
  };
  mdm::Trainer trainer(config, kSeed, parts);
  if (saved) trainer.resume(*saved);
  return trainer.run() == mdm::TrainingEnd::kFinished ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    return train(argv[1], argv[2], argv[3], argv[4]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
