// The table of all settings: one line each, which reading, dumping, help and flags go by.
// Names and defaults are those of the reference where it has the setting.
#include "config/describe.h"

#include "mdm/core/error.h"

namespace mdm::settings {
namespace {

constexpr double kManyPixels = 65536;
constexpr double kMany = 1e12;
constexpr double kManyChannels = 65536;

constexpr Choice<ScheduleType> kSchedules[] = {{"COSINE", ScheduleType::kCosine, 0},
                                               {"DDPM", ScheduleType::kDdpm, 2},
                                               {"DEEPFLOYD", ScheduleType::kDeepFloyd, 3},
                                               {"SIGMOID", ScheduleType::kSigmoid, 4}};
constexpr Choice<PredictionType> kPredictions[] = {{"DDPM", PredictionType::kDdpm, 3},
                                                   {"DDIM", PredictionType::kDdim, 4},
                                                   {"V_PREDICTION", PredictionType::kVPrediction, 5},
                                                   {"X0", PredictionType::kX0}};
// The words in brackets are those of the reference's demo.
constexpr Choice<ThresholdType> kThresholds[] = {{"NONE", ThresholdType::kNone, 0},
                                                 {"CLIP", ThresholdType::kClip, 1},
                                                 {"DYNAMIC", ThresholdType::kDynamic, 2},
                                                 {"DYNAMIC_IF", ThresholdType::kDynamicIf, 3},
                                                 {"dynamic (Imagen)", ThresholdType::kDynamic},
                                                 {"dynamic (DeepFloyd)", ThresholdType::kDynamicIf}};
constexpr Choice<TextKind> kTextKinds[] = {{"t5", TextKind::kT5},
                                           {"joint", TextKind::kJoint},
                                           {"precomputed", TextKind::kPrecomputed},
                                           {"class", TextKind::kClass}};
constexpr Choice<TokenizerKind> kTokenizers[] = {{"mdm", TokenizerKind::kMdm}, {"t5", TokenizerKind::kT5}};
constexpr Choice<TextPrecision> kTextPrecisions[] = {{"fp32", TextPrecision::kFp32}, {"bf16", TextPrecision::kBf16}};
constexpr Choice<Precision> kPrecisions[] = {{"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}};
constexpr Choice<CollectiveBackend> kBackends[] = {
    {"auto", CollectiveBackend::kAuto}, {"gloo", CollectiveBackend::kGloo}, {"nccl", CollectiveBackend::kNccl}};
constexpr Choice<SamplerKind> kSamplers[] = {{"ddpm", SamplerKind::kDdpm},
                                             {"ddim", SamplerKind::kDdim},
                                             {"euler", SamplerKind::kEuler},
                                             {"heun", SamplerKind::kHeun},
                                             {"dpmpp_2m", SamplerKind::kDpmSolver2M},
                                             {"dpmpp_2m_sde", SamplerKind::kDpmSolver2MSde},
                                             {"unipc", SamplerKind::kUniPc}};
constexpr Choice<TimestepSpacing> kSpacings[] = {{"reference", TimestepSpacing::kReference},
                                                 {"matryoshka", TimestepSpacing::kReference},
                                                 {"leading", TimestepSpacing::kLeading},
                                                 {"trailing", TimestepSpacing::kTrailing},
                                                 {"linspace", TimestepSpacing::kLinspace}};
constexpr Choice<AnimationKind> kAnimations[] = {
    {"none", AnimationKind::kNone}, {"webp", AnimationKind::kWebp}, {"apng", AnimationKind::kApng}};

constexpr Choice<ReaderCompat> kReaderCompats[] = {{"none", ReaderCompat::kNone}, {"mlx", ReaderCompat::kMlx}};
constexpr Choice<LongCaptions> kLongCaptions[] = {{"drop", LongCaptions::kDrop}, {"truncate", LongCaptions::kTruncate}};
constexpr Choice<LrDecay> kLrDecays[] = {{"constant", LrDecay::kConstant},
                                         {"cosine", LrDecay::kCosine},
                                         {"linear", LrDecay::kLinear},
                                         {"inverse_sqrt", LrDecay::kInverseSqrt}};

TextRef pad_policy(PadPolicy& pad) {
  TextRef ref;
  ref.assign = [&pad](const std::string& text) {
    try {
      pad = PadPolicy::parse(text);
      return true;
    } catch (const ConfigError&) {
      return false;
    }
  };
  ref.get = [&pad] { return std::optional<std::string>(pad.text()); };
  ref.choices = {"pair", "batch", "fixed:N"};
  ref.limits = concat("N from 1 to ", PadPolicy::kMostTokens);
  return ref;
}

std::vector<Field> resnet_fields(ResNetConfig& c) {
  return {
      Field("num_channels", &c.num_channels, "input channels; -1: set by the level that holds it")
          .range(-1, kManyChannels),
      Field("output_channels", &c.output_channels, "output channels; -1: set by the level that holds it")
          .range(-1, kManyChannels),
      Field("num_groups_norm", &c.num_groups_norm, "groups of the group norms").range(1, kManyChannels),
      Field("dropout", &c.dropout, "before the second convolution, in training").range(0, 1).below(1),
      Field("use_attention_ffn", &c.use_attention_ffn, "a feed-forward part after each attention layer"),
  };
}

std::vector<Field> unet_fields(UNetConfig& c, bool has_inner) {
  std::vector<Field> fields = {
      Field("num_resnets_per_resolution", &c.num_resnets_per_resolution,
            "residual blocks per resolution; one number counts for all")
          .range(0, 1000)
          .not_empty(),
      Field("temporal_dim", &c.temporal_dim, "width of the time embedding; unset: 4 x the first channels")
          .range(1, kManyChannels),
      Field("attention_levels", &c.attention_levels, "resolutions that attend, 0 = highest; empty: none").range(0, 63),
      Field("num_attention_layers", &c.num_attention_layers,
            "attention layers after each block; one number counts for all")
          .range(0, 1000)
          .not_empty(),
      Field("num_temporal_attention_layers", &c.num_temporal_attention_layers, "temporal mode: attention over time")
          .range(0, 1000),
      Field("conditioning_feature_dim", &c.conditioning_feature_dim,
            "width of the text's features; -1: that of the text encoder")
          .range(-1, kManyChannels),
      Field("conditioning_feature_proj_dim", &c.conditioning_feature_proj_dim,
            "the text is projected to this width first; -1: not")
          .range(-1, kManyChannels),
      Field("num_lm_head_layers", &c.num_lm_head_layers, "trained self-attention layers on the text's features")
          .range(0, 1000),
      Field("masked_cross_attention", &c.masked_cross_attention, "hide padding from cross-attention"),
      Field("resolution_channels", &c.resolution_channels, "channels of each resolution, highest resolution first")
          .range(1, kManyChannels)
          .not_empty(),
      Field("skip_mid_blocks", &c.skip_mid_blocks, "no blocks at the lowest resolution's middle"),
      Field("skip_cond_emb", &c.skip_cond_emb, "no pooled text added to the time embedding"),
      Field("nesting", &c.nesting, "this level stands inside another"),
      Field("micro_conditioning", &c.micro_conditioning,
            "further numbers the model is told, LABEL:DEFAULT,LABEL:DEFAULT; empty: none")
          .unset_by_none(),
      Field("temporal_mode", &c.temporal_mode, "the input is a sequence of pictures"),
      Field("temporal_spatial_ds", &c.temporal_spatial_ds, "temporal mode: frames are space-downsampled too"),
      Field("temporal_positional_encoding", &c.temporal_positional_encoding, "temporal mode: frames know their place"),
  };
  if (!has_inner) return fields;
  fields.push_back(
      Field("skip_inner_unet_input", &c.skip_inner_unet_input, "the inner level gets the picture, no features"));
  fields.push_back(Field("skip_normalization", &c.skip_normalization,
                         "don't divide the level's noisy input by its standard deviation"));
  fields.push_back(Field("initialize_inner_with_pretrained", &c.initialize_inner_with_pretrained,
                         "training: checkpoint that the inner level starts from; empty: none")
                       .unset_by_none()
                       .input_file());
  fields.push_back(Field("freeze_inner_unet", &c.freeze_inner_unet, "the inner levels are not trained"));
  fields.push_back(Field("interp_conditioning", &c.interp_conditioning, "two unused layers that old files hold"));
  return fields;
}

std::vector<Field> sampler_fields(SamplerConfig& c) {
  return {
      Field("num_diffusion_steps", &c.num_diffusion_steps, "N, steps of the noise schedule").range(2, 1e6),
      Field("reproject_signal", &c.reproject_signal, "kept for old files; has no effect"),
      Field("schedule_type", choice(c.schedule_type, kSchedules), "how the noise grows with the steps"),
      Field("prediction_type", choice(c.prediction_type, kPredictions),
            "what the model predicts: DDPM and DDIM mean the noise"),
      Field("loss_target_type", choice(c.loss_target_type, kPredictions),
            "what the loss compares; unset: what the model predicts"),
      Field("beta_start", &c.beta_start, "first beta of the DDPM schedule").range(0, 1),
      Field("beta_end", &c.beta_end, "last beta of the DDPM schedule").range(0, 1),
      Field("sigmoid_start", &c.sigmoid_start, "start of the SIGMOID schedule").range(-1000, 1000),
      Field("sigmoid_end", &c.sigmoid_end, "end of the SIGMOID schedule").range(-1000, 1000),
      Field("sigmoid_tau", &c.sigmoid_tau, "temperature of the SIGMOID schedule").above(0),
      Field("threshold_function", choice(c.threshold_function, kThresholds),
            "what is done to predicted pictures whose values leave [-1, 1]"),
      Field("rescale_schedule", &c.rescale_schedule, "more than 1: the schedule is shifted to more noise").above(0),
      Field("rescale_signal", &c.rescale_signal, "pictures are divided by this before noise is added; unset: not")
          .at_least(0),
      Field("schedule_shifted", &c.schedule_shifted, "nested levels' schedules are shifted by their resolution"),
      Field("schedule_shifted_power", &c.schedule_shifted_power, "the shift is (ratio of the sides)^this")
          .range(-100, 100),
  };
}

std::vector<Field> diffusion_fields(DiffusionConfig& c) {
  return {
      Field("model_output_scale", &c.model_output_scale, "s: the output becomes s tanh(output / s); 0: not")
          .at_least(0),
      Field("use_vdm_loss_weights", &c.use_vdm_loss_weights,
            "weight the loss by the change of the signal-to-noise ratio"),
      Field("use_double_loss", &c.use_double_loss, "nested: the loss of all levels counts, not the highest's alone"),
      Field("multi_res_weights", &c.multi_res_weights, "nested: weight of each level's loss, outermost first")
          .at_least(0),
      Field("no_use_residual", &c.no_use_residual, "must be yes: levels predict whole pictures, not residuals"),
      Field("use_random_interp", &c.use_random_interp, "kept for old files; has no effect"),
      Field("mixed_ratio", &c.mixed_ratio, "nested: parts of a training batch that end at each level, outermost first")
          .at_least(0),
      Field("random_downsample", &c.random_downsample, "temporal mode: kept for old files"),
      Field("average_downsample", &c.average_downsample, "temporal mode: kept for old files"),
      Field("mid_downsample", &c.mid_downsample, "temporal mode: kept for old files"),
  };
}

std::vector<Field> reader_fields(ReaderConfig& c) {
  return {
      Field("smaller_side_size", &c.smaller_side_size, "the smaller side is resized to this; -1: to image_size")
          .range(-1, kManyPixels),
      Field("max_caption_length", &c.max_caption_length,
            "longest caption; -1: no limit (characters; in training bytes)")
          .range(-1, kMany),
      Field("max_token_length", &c.max_token_length, "most tokens of a caption; -1: no limit").range(-1, 1e6),
      Field("image_size", &c.image_size, "side of the square picture; -1: not resized").range(-1, kManyPixels),
      Field("random_crop", &c.random_crop, "crop anywhere instead of at the centre"),
      Field("num_kept_files", &c.num_kept_files, "most tar files held open; -1: no limit").range(-1, 1e6),
      Field("num_readers", &c.num_readers, "threads that read").range(1, 1024),
      Field("shuffle_buffer_size", &c.shuffle_buffer_size, "kept for old files; all of an epoch is shuffled")
          .range(0, 1e9),
      Field("reader_buffer_size", &c.reader_buffer_size, "batches read ahead").range(0, 1e9),
      Field("endpoint_url", &c.endpoint_url, "S3 endpoint; empty: from the environment").unset_by_none(),
      Field("bucket", &c.bucket, "bucket of the S3 endpoint"),
      Field("prepad_caption_with_space", &c.prepad_caption_with_space, "put a space before each caption"),
      Field("use_tokenizer_scores", &c.use_tokenizer_scores, "tokenize by scores; no: fewest tokens"),
      Field("prepad_bos", &c.prepad_bos, "put a begin token first"),
      Field("append_eos", &c.append_eos, "put an end token last"),
      Field("padding_token", &c.padding_token, "the vocabulary's entry that fills short captions"),
      Field("pad_to_max_length", &c.pad_to_max_length, "pad captions to max_token_length"),
      Field("compat", choice(c.compat, kReaderCompats), "mlx: read exactly as the reference's reader does"),
      Field("shuffle", &c.shuffle, "a new order in each epoch"),
      Field("random_flip", &c.random_flip, "mirror half of the pictures"),
      Field("long_captions", choice(c.long_captions, kLongCaptions),
            "drop samples with captions that are too long, or cut them"),
      Field("caption_dropout", &c.caption_dropout, "share of the captions that become empty in training").range(0, 1),
      Field("token_buckets", &c.token_buckets,
            "batch captions of similar length: padded to one of these numbers of tokens; empty: one length")
          .range(1, 1e6),
      Field("max_bad_fraction", &c.max_bad_fraction, "share of broken samples that ends the run").range(0, 1),
      Field("max_image_pixels", &c.max_image_pixels, "larger pictures are refused").range(1, 4e9),
      Field("cache_dir", &c.cache_dir, "where shards named by URLs are kept; empty: the user's cache folder")
          .unset_by_none(),
      Field("allow_private_hosts", &c.allow_private_hosts, "shards named by URLs may lie on this machine or network"),
      Field("use_proxy", &c.use_proxy, "fetch them by the proxy that http_proxy and https_proxy name"),
  };
}

std::vector<Field> text_fields(TextConfig& c) {
  return {
      Field("text_model", &c.text_model, "folder of a T5 encoder, or its id in the Hugging Face cache")
          .unset_by_none()
          .input_file(),
      Field("vocab_file", &c.vocab_file, "vocabulary (.vocab or spiece.model); empty: the text model's own")
          .unset_by_none()
          .input_file(),
      Field("tokenizer", choice(c.tokenizer, kTokenizers), "mdm: as the reference; t5: sentencepiece"),
      Field("text_kind", choice(c.kind, kTextKinds), "where a caption's features come from"),
      Field("text_precision", choice(c.text_precision, kTextPrecisions), "arithmetic of the text encoder"),
      Field("categorical_conditioning", &c.categorical_conditioning, "the reference's word for text_kind: class"),
      Field("use_precomputed_text_embeddings", &c.use_precomputed_text_embeddings,
            "the reference's word for text_kind: precomputed"),
      Field("keep_text_encoder", &c.keep_text_encoder, "keep the text encoder in memory while denoising"),
      Field("pad", pad_policy(c.pad),
            "padding of a caption: to the longer of prompt and negative prompt, to the "
            "longest of the batch, or to N tokens"),
      Field("joint_width", &c.joint_width, "joint: width of the text's features").range(1, kManyChannels),
      Field("joint_layers", &c.joint_layers, "joint: layers").range(1, 1000),
      Field("joint_heads", &c.joint_heads, "joint: attention heads").range(1, 1000),
      Field("joint_tokens", &c.joint_tokens, "joint: most tokens of a caption").range(1, 1e6),
      Field("embedding_cache", &c.embedding_cache, "training: folder where outputs of the text encoder are kept")
          .unset_by_none(),
  };
}

std::vector<Field> trainer_fields(TrainerConfig& c) {
  return {
      Field("multinode", &c.multinode, "kept for old files; has no effect"),
      Field("local_rank", &c.local_rank, "kept for old files; the launcher says which process this is").range(0, 1e6),
      Field("use_adamw", &c.use_adamw, "AdamW instead of Adam"),
      Field("file_list", &c.file_list, "TSV that lists the training samples, or TSVs of them").input_file(),
      Field("log_freq", &c.log_freq, "steps between two log lines").range(1, 1e9),
      Field("save_freq", &c.save_freq, "steps between two checkpoints").range(1, 1e9),
      Field("lr", &c.lr, "highest learning rate").range(0, 1e6),
      Field("lr_scaling_factor", &c.lr_scaling_factor, "kept for old files; has no effect").range(-1e6, 1e6),
      Field("gradient_clip_norm", &c.gradient_clip_norm, "gradients are scaled down to this norm").above(0),
      Field("warmup_steps", &c.warmup_steps, "steps until the learning rate has risen to lr").range(0, 1e9),
      Field("num_gradient_accumulations", &c.num_gradient_accumulations, "batches per step").range(1, 1e6),
      Field("loss_factor", &c.loss_factor, "the loss is multiplied by this").above(0),
      Field("resume_from_ema", &c.resume_from_ema, "resume from the averaged weights"),
      Field("seed", &c.seed, "seed of the run; -1: drawn at random and logged").range(-1, 9e15),
      Field("output_dir", &c.output_dir, "folder for checkpoints and logs").unset_by_none(),
      Field("pretrained_vision_file", &c.pretrained_vision_file, "checkpoint to start from; empty: fresh weights")
          .unset_by_none()
          .input_file(),
      Field("batch_size", &c.batch_size, "samples per process and batch").range(1, 1e6),
      Field("global_batch_size", &c.global_batch_size,
            "samples per step, of all processes and accumulated batches; 0: what batch_size makes of it")
          .range(0, 1e9),
      Field("bucket_mb", &c.bucket_mb, "several processes: megabytes of gradients that are summed at a time")
          .above(0)
          .range(0, 1e6),
      Field("reduce_precision", choice(c.reduce_precision, kPrecisions),
            "several processes: arithmetic of the sums of gradients"),
      Field("shard_optimizer", &c.shard_optimizer,
            "several processes: each keeps a part of the optimizer's moments, the averaged weights and, with bf16, the "
            "float32 weights, instead of all (ZeRO-1)"),
      Field("num_training_steps", &c.num_training_steps, "steps until training ends").range(1, kMany),
      Field("num_epochs", &c.num_epochs, "passes over the data until training ends").range(1, 1e9),
      Field("adam_beta1", &c.adam_beta1, "decay of the gradient's average").range(0, 1).below(1),
      Field("adam_beta2", &c.adam_beta2, "decay of the squared gradient's average").range(0, 1).below(1),
      Field("adam_eps", &c.adam_eps, "added to the root of the squared gradient's average").above(0),
      Field("weight_decay", &c.weight_decay, "AdamW: decay of the weights").range(0, 1e6),
      Field("lr_decay", choice(c.lr_decay, kLrDecays), "the learning rate after the warm-up"),
      Field("lr_end", &c.lr_end, "cosine, linear: the last learning rate, as a share of lr").range(0, 1),
      Field("ema_decay", &c.ema_decay, "decay of the averaged weights").range(0, 1).below(1),
      Field("ema_warmup", &c.ema_warmup, "a smaller decay in the first steps: (1 + n) / (10 + n)"),
      Field("gradient_checkpointing", &c.gradient_checkpointing, "less memory, more time: activations are recomputed"),
      Field("gradient_checkpointing_levels", &c.gradient_checkpointing_levels,
            "on these levels of a nested model, 0 the outermost; empty: on all")
          .range(0, 16),
      Field("keep_last", &c.keep_last, "checkpoints that are kept").range(2, 1e6),
      Field("keep_every", &c.keep_every, "checkpoints of steps that are multiples of this stay; 0: none")
          .range(0, 1e12),
      Field("write_pth", &c.write_pth, "also write vis_model_*.pth as the reference does"),
      Field("allow_config_change", &c.allow_config_change, "resume although settings have changed"),
      Field("pretrained_ema", &c.pretrained_ema,
            "start from the averaged weights where pretrained_vision_file has both"),
      Field("sample_freq", &c.sample_freq, "steps between two grids of pictures; 0: none").range(0, 1e12),
      Field("sample_prompts", &c.sample_prompts, "what these pictures show; empty: validation captions"),
      Field("sample_steps", &c.sample_steps, "denoising steps of these pictures").range(1, 1e6),
      Field("sample_guidance", &c.sample_guidance, "guidance scale of these pictures").range(0, 1000),
      Field("validation_file_list", &c.validation_file_list,
            "TSV of samples that are kept out of training; empty: none")
          .unset_by_none()
          .input_file(),
      Field("validation_freq", &c.validation_freq, "steps between two validation losses").range(1, 1e12),
      Field("validation_samples", &c.validation_samples, "samples of a validation loss").range(1, 1e9),
      Field("eval_freq", &c.eval_freq, "steps between two scores of drawn pictures, as `evaluate` makes them; 0: none")
          .range(0, 1e12),
      Field("eval_samples", &c.eval_samples, "pictures that such a score takes").range(2, 1e9),
      Field("eval_inception", &c.eval_inception, "weights of FID's Inception-v3, FILE; empty: no FID")
          .unset_by_none()
          .input_file(),
      Field("eval_reference", &c.eval_reference, "what FID compares with: pictures, or statistics (FILE.npz)")
          .unset_by_none()
          .input_file(),
      Field("eval_features", &c.eval_features, "64, 192, 768 or 2048 features of Inception-v3").range(64, 2048),
      Field("eval_clip", &c.eval_clip, "folder of a CLIP, or its id in the Hugging Face cache; empty: no CLIP score")
          .unset_by_none()
          .input_file(),
      Field("max_skipped_steps", &c.max_skipped_steps, "non-finite steps in a row until training goes back")
          .range(1, 1e6),
  };
}

std::vector<Field> sample_fields(SampleConfig& c) {
  return {
      Field("checkpoint", &c.checkpoint, "file of weights (.pth or .safetensors)")
          .also({"model_file", "pretrained_vision_file"})
          .unset_by_none()
          .input_file(),
      Field("allow_partial", &c.allow_partial,
            "load what fits of a checkpoint that lacks tensors of the model, or has others; the rest is drawn fresh"),
      Field("ema", &c.ema, "use the averaged weights where a file holds both"),
      Field("prompt", &c.prompts, "what to make pictures of"),
      Field("prompts_file", &c.prompts_file, "file with a prompt a line, or the reference's TSV")
          .unset_by_none()
          .input_file(),
      Field("negative_prompt", &c.negative_prompts,
            "what the pictures should not show: one for all, or one per prompt"),
      Field("guidance_scale", &c.guidance_scale, "how strongly the prompt pulls; 1: no guidance")
          .also({"cfg_weight"})
          .range(0, 1000),
      Field("guidance_rescale", &c.guidance_rescale, "share of the contrast that guidance adds and is taken back")
          .range(0, 1),
      Field("guidance_start", &c.guidance_start, "guidance acts from this share of the steps on").range(0, 1),
      Field("guidance_end", &c.guidance_end, "guidance acts up to this share of the steps").range(0, 1),
      Field("num_inference_steps", &c.num_inference_steps, "denoising steps").range(1, 1e6),
      Field("sampler", choice(c.sampler, kSamplers),
            "how a step is made; euler, heun, dpmpp_2m, dpmpp_2m_sde and unipc are for about 20 steps"),
      Field("ddim_eta", &c.ddim_eta, "noise of a DDIM step: 0 none, 1 as DDPM; setting it chooses ddim").range(0, 10),
      Field("timestep_spacing", choice(c.timestep_spacing, kSpacings), "which of the N steps are visited"),
      Field("threshold", choice(c.threshold, kThresholds), "instead of the model's threshold_function"),
      Field("init_image", &c.init_image, "start from this picture instead of noise").unset_by_none().input_file(),
      Field("strength", &c.strength, "with init_image: share of the steps that are run").range(0, 1).above(0),
      Field("seed", &c.seed, "picture i uses seed + i; -1: drawn at random and logged").range(-1, 9e15),
      Field("num_samples", &c.num_samples, "pictures per prompt").range(1, 1e6),
      Field("batch_size", &c.batch_size, "pictures made at a time").range(1, 1e6),
      Field("sample_image_size", &c.sample_image_size, "side of the pictures; -1: the model's own")
          .range(-1, kManyPixels),
      Field("sample_dir", &c.output_dir, "folder for the pictures").also({"output_dir"}),
      Field("output_inner", &c.output_inner, "also write the pictures of the inner levels"),
      Field("animation", choice(c.animation, kAnimations), "also write the denoising path as a moving picture"),
      Field("animation_every", &c.animation_every, "steps between two frames").range(1, 1e6),
      Field("grid", &c.grid, "also write all pictures as one"),
      Field("gallery", &c.gallery, "also write index.html"),
      Field("metadata", &c.metadata, "write the settings into the PNG files"),
      Field("from_image", &c.from_image, "take prompt and settings from a PNG made by sample")
          .unset_by_none()
          .input_file(),
  };
}

std::vector<Field> runtime_fields(RuntimeConfig& c) {
  return {
      Field("device", &c.device, "auto, cpu, cuda or cuda:N"),
      Field("precision", choice(c.precision, kPrecisions), "arithmetic of the model"),
      Field("threads", &c.threads, "CPU threads; 0: all cores").range(0, 4096),
      Field("cuda_graphs", &c.cuda_graphs,
            "sampling on a GPU: record the model's work once, then launch it as a whole"),
      Field("loglevel", &c.loglevel, "trace, debug, info, warning, error or off; empty: the variable MDM_LOG")
          .unset_by_none(),
  };
}

std::vector<Field> distributed_fields(DistributedConfig& c) {
  return {
      Field("rank", &c.rank, "number of this process; -1: as the launcher says").range(-1, 1 << 24),
      Field("world_size", &c.world_size, "how many processes there are; -1: as the launcher says").range(-1, 1 << 24),
      Field("master_addr", &c.master_addr, "host of rank 0; empty: as the launcher says").unset_by_none(),
      Field("master_port", &c.master_port, "port where rank 0 listens; -1: as the launcher says").range(-1, 65535),
      Field("rendezvous_file", &c.rendezvous_file, "a new file that all processes see, instead of host and port")
          .unset_by_none(),
      Field("backend", choice(c.backend, kBackends), "what collectives run on; auto: nccl on GPUs, gloo on CPUs"),
      Field("connect_timeout", &c.connect_timeout, "seconds until rank 0 must answer").above(0),
      Field("init_timeout", &c.init_timeout, "seconds until all processes must be there").above(0),
      Field("collective_timeout", &c.collective_timeout, "seconds until a collective must be done").above(0),
  };
}

}  // namespace

const std::vector<std::string>& model_kinds() {
  static const std::vector<std::string> kinds = {"unet", "nested_unet", "nested2_unet", "nested3_unet", "nested4_unet"};
  return kinds;
}

ModelConfig default_model(int levels) {
  ModelConfig model;
  model.levels.assign(static_cast<size_t>(levels), UNetConfig{});
  for (size_t i = 0; i < model.levels.size(); ++i) {
    const bool innermost = i + 1 == model.levels.size();
    model.levels[i].skip_mid_blocks = !innermost;
    model.levels[i].skip_cond_emb = !innermost;
    model.levels[i].nesting = i > 0;
  }
  return model;
}

std::vector<Group> describe(Config& config) {
  std::vector<Group> groups;
  std::string path = "unet_config";
  for (size_t i = 0; i < config.model.levels.size(); ++i) {
    UNetConfig& level = config.model.levels[i];
    const std::string title = i == 0 ? "Model" : concat("Model, level ", i, " inside");
    groups.push_back({path, title, Section::kModel, false, unet_fields(level, i + 1 < config.model.levels.size())});
    groups.push_back({path + ".resnet_config", title + ": residual blocks", Section::kModel, false,
                      resnet_fields(level.resnet_config)});
    path += ".inner_config";
  }
  groups.push_back({"diffusion_config", "Diffusion", Section::kDiffusion, false, diffusion_fields(config.diffusion)});
  groups.push_back({"diffusion_config.sampler_config", "Diffusion: noise schedule and prediction", Section::kDiffusion,
                    false, sampler_fields(config.diffusion.sampler_config)});
  groups.push_back(
      {"reader_config", "Reading images and captions", Section::kReader, false, reader_fields(config.reader)});
  groups.push_back({"text", "Text", Section::kText, true, text_fields(config.text)});
  groups.push_back({"trainer", "Training", Section::kTrainer, true, trainer_fields(config.trainer)});
  groups.push_back({"sample", "Sampling", Section::kSample, true, sample_fields(config.sample)});
  groups.push_back({"runtime", "Machine", Section::kRuntime, true, runtime_fields(config.runtime)});
  groups.push_back(
      {"distributed", "Several processes", Section::kDistributed, true, distributed_fields(config.distributed)});
  return groups;
}

}  // namespace mdm::settings

namespace mdm {

std::string choice_name(SamplerKind kind) { return settings::name_in(settings::kSamplers, kind); }
std::string choice_name(TimestepSpacing spacing) { return settings::name_in(settings::kSpacings, spacing); }
std::string choice_name(ThresholdType type) { return settings::name_in(settings::kThresholds, type); }
std::string choice_name(CollectiveBackend backend) { return settings::name_in(settings::kBackends, backend); }
std::string choice_name(Precision precision) { return settings::name_in(settings::kPrecisions, precision); }

}  // namespace mdm
