// Features are those of torch-fidelity and transformers on the same pictures with the same weights; pictures are
// resized as they do.
#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "evaluation/golden.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/evaluation/clip.h"
#include "mdm/evaluation/dinov2.h"
#include "mdm/evaluation/inception.h"
#include "mdm/evaluation/preprocessing.h"
#include "mdm/media/decode.h"

namespace mdm {
namespace {

using testing::expected;
using testing::expected_features;
using testing::golden_pictures;
using testing::relative_error;

constexpr double kTolerance = 1e-4;  // relative, of features

const InceptionV3& inception() {
  static const InceptionV3 network = InceptionV3::load(testing::inception_weights());
  return network;
}

Image picture(const std::filesystem::path& path) {
  DecodeOptions options;
  options.apply_exif_orientation = false;
  return load_image(path, options);
}

std::string key(const std::string& start, const std::filesystem::path& path) {
  return start + "." + path.filename().string();
}

TEST(InceptionV3, HasTheFeaturesOfTorchFidelity) {
  double worst = 0;
  for (const auto& path : golden_pictures()) {
    const at::Tensor x = inception_input(picture(path), InceptionResize::kTensorFlow).unsqueeze(0);
    for (const int64_t width : {64, 192, 768, 2048}) {
      const at::Tensor wanted = expected_features().at(key("inception." + std::to_string(width), path));
      const at::Tensor found = inception().forward(x, width);
      ASSERT_EQ(found.sizes(), at::IntArrayRef({1, width}));
      const double error = relative_error(found[0], wanted);
      EXPECT_LT(error, kTolerance) << path << " " << width;
      worst = std::max(worst, error);
    }
  }
  std::printf("largest relative error: %.2g\n", worst);
}

TEST(InceptionV3, ResizesAsPytorchFidAndCleanFid) {
  int compared = 0;
  for (const auto resize : {InceptionResize::kPytorchFid, InceptionResize::kClean}) {
    for (const auto& path : golden_pictures()) {
      const auto wanted =
          expected_features().find(key(std::string("inception.") + inception_resize_name(resize), path));
      if (wanted == expected_features().end()) continue;
      const at::Tensor found = inception().forward(inception_input(picture(path), resize).unsqueeze(0));
      EXPECT_LT(relative_error(found[0], wanted->second), kTolerance) << inception_resize_name(resize) << " " << path;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 6);
}

TEST(InceptionV3, GivesAPictureTheSameFeaturesInAnyBatch) {
  const auto pictures = golden_pictures();
  std::vector<at::Tensor> inputs;
  for (const auto& path : pictures) inputs.push_back(inception_input(picture(path), InceptionResize::kTensorFlow));
  const at::Tensor together = inception().forward(at::stack(inputs), 192);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor alone = inception().forward(inputs[i].unsqueeze(0), 192)[0];
    EXPECT_LT(relative_error(together[static_cast<int64_t>(i)], alone), 1e-5);
  }
}

TEST(InceptionV3, RefusesOtherWeights) {
  EXPECT_THROW(InceptionV3::load(testing::clip_folder() / "model.safetensors"), CheckpointError);
  EXPECT_THROW(InceptionV3::load("/nowhere.pth"), Error);
  EXPECT_THROW(inception().forward(at::Tensor(), 100), Error);
  EXPECT_THROW(parse_inception_resize("bilinear"), ConfigError);
}

TEST(Preprocessing, ResizesBitForBitAsPillow) {
  size_t compared = 0;
  for (const auto& path : golden_pictures()) {
    const Image rgb = to_rgb(picture(path), AlphaRule::kDrop);
    for (const auto& [width, height] : {std::pair{224, 224}, {64, 91}, {17, 5}, {300, 20}}) {
      const Image resized = resize_as_pillow(rgb, width, height);
      const std::string name = path.filename().string() + " " + std::to_string(width) + " " + std::to_string(height);
      const std::string_view bytes(reinterpret_cast<const char*>(resized.pixels.data()), resized.pixels.size());
      EXPECT_EQ(sha256_hex(bytes), expected()["pillow"][name].get<std::string>()) << name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, expected()["pillow"].size());
}

TEST(Preprocessing, TakesTensorFlowsPlacesWithoutAntialiasing) {
  Image image(2, 1, 1);
  image.pixels = {0, 128};
  const at::Tensor x = inception_input(image, InceptionResize::kTensorFlow);
  const auto at_column = [&](int64_t i) { return x[0][0][i].item<float>() * 128 + 128; };
  EXPECT_NEAR(at_column(0), 0, 1e-4);
  EXPECT_NEAR(at_column(100), 128 * 200.0 / 299, 1e-2);
  EXPECT_NEAR(at_column(150), 128, 1e-4);  // beyond the last pixel's place
  EXPECT_NEAR(at_column(298), 128, 1e-4);
}

TEST(Preprocessing, CutsTheMiddleOfWhatClipTakes) {
  constexpr Normalization kPlain{{0, 0, 0}, {1, 1, 1}};
  Image image(7, 4, 3, 0);
  for (int y = 0; y < 4; ++y) image.row(y)[3 * 2] = 255;  // red in column 2; columns 1 to 4 are the middle
  const at::Tensor x = clip_input(image, 4, kPlain);
  EXPECT_EQ(x.sizes(), at::IntArrayRef({3, 4, 4}));
  EXPECT_EQ(x[0][0][1].item<float>(), 1);
  EXPECT_EQ(x[0].sum().item<float>(), 4);
  EXPECT_THROW(clip_input(Image(30000, 1, 1), 224, kPlain), DataError);
}

TEST(ClipModel, HasTheEmbeddingsOfTransformers) {
  const ClipModel clip = ClipModel::load(testing::clip_folder());
  EXPECT_EQ(clip.side(), 64);
  EXPECT_EQ(clip.most_tokens(), 77);
  double worst = 0;
  const auto compare = [&](const at::Tensor& found, const std::string& name) {
    const double error = relative_error(found, expected_features().at(name));
    EXPECT_LT(error, kTolerance) << name;
    worst = std::max(worst, error);
  };
  const auto& captions = expected()["clip"]["captions"];
  for (size_t i = 0; i < captions.size(); ++i) {
    compare(clip.text_embedding(captions[i].get<std::string>()), "clip.text." + std::to_string(i));
  }
  size_t i = 0;
  for (const auto& path : golden_pictures()) {
    compare(clip.image_embedding(picture(path)), key("clip.image", path));
    const double wanted = expected()["clip"]["scores"][path.filename().string()].get<double>();
    EXPECT_NEAR(clip.similarity(picture(path), captions[i++].get<std::string>()), wanted, 1e-4);
  }
  std::printf("largest relative error: %.2g\n", worst);
}

TEST(ClipModel, RefusesOtherFolders) {
  EXPECT_THROW(ClipModel::load(testing::dinov2_folder()), ConfigError);
  EXPECT_THROW(ClipModel::load("/nowhere"), ConfigError);
}

TEST(DinoV2, HasTheFeaturesOfTransformers) {
  const DinoV2 dinov2 = DinoV2::load(testing::dinov2_folder());
  for (const auto& path : golden_pictures()) {
    const at::Tensor found = dinov2.forward(dinov2_input(picture(path), DinoV2::kSide).unsqueeze(0))[0];
    EXPECT_LT(relative_error(found, expected_features().at(key("dinov2", path))), kTolerance) << path;
  }
  EXPECT_THROW(DinoV2::load(testing::clip_folder()), ConfigError);
}

}  // namespace
}  // namespace mdm
