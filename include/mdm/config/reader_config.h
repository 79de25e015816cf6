// What a user can set about reading images and captions.
// Field names and defaults are those of the reference (ml_mdm/reader.py: ReaderConfig).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mdm {

enum class ReaderCompat {
  kNone,
  kMlx,  ///< order, crops, resizing and captions as the reference's mlx-data reader gives them
};

/// What becomes of training captions that pass max_caption_length or max_token_length.
enum class LongCaptions {
  kDrop,      ///< the sample is left out, as the reference does
  kTruncate,  ///< the caption is cut
};

struct ReaderConfig {
  int64_t smaller_side_size = -1;  ///< the image's smaller side is resized to this, in pixels; -1: image_size
  int64_t max_caption_length =
      -1;  ///< longest caption; -1: no limit (reader.py: characters when sampling, bytes in training)
  int64_t max_token_length = -1;          ///< most tokens of a caption, the end token included; -1: no limit
  int64_t image_size = -1;                ///< side of the square crop, in pixels; -1: images are not resized
  bool random_crop = false;               ///< crop anywhere instead of at the centre
  int64_t num_kept_files = -1;            ///< most tar files held open; -1: no limit
  int64_t num_readers = 16;               ///< threads that read and decode
  int64_t shuffle_buffer_size = 9600;     ///< read and kept; shuffling is over the whole epoch here
  int64_t reader_buffer_size = 9600;      ///< batches read ahead
  std::string endpoint_url;               ///< S3 endpoint; empty: from the environment. Must not hold a password
  std::string bucket = "mlx";             ///< S3 bucket
  bool prepad_caption_with_space = true;  ///< a space is put in front of each caption before tokenization
  bool use_tokenizer_scores = true;       ///< tokenize by the vocabulary's scores; false: fewest tokens
  bool prepad_bos = false;                ///< a begin token is put first
  bool append_eos = true;                 ///< an end token is put last
  std::string padding_token = "<pad>";    ///< the vocabulary's entry that fills short captions
  ReaderCompat compat = ReaderCompat::kNone;
  bool shuffle = true;       ///< a new order in each epoch
  bool random_flip = false;  ///< half of the images are mirrored
  LongCaptions long_captions = LongCaptions::kDrop;
  double caption_dropout = 0.1;        ///< share of the captions that are replaced by the empty one, [0, 1]
  std::vector<int64_t> token_buckets;  ///< batches have captions of similar length, padded to one of these numbers of
                                       ///< tokens; ascending; empty: one length for all
  double max_bad_fraction = 0.01;      ///< more broken samples than this among the last 10,000 end the run, [0, 1]
  int64_t max_image_pixels = int64_t{1} << 25;  ///< larger images are refused
  std::string cache_dir;             ///< where shards named by URLs are kept; empty: below the user's cache folder
  bool allow_private_hosts = false;  ///< shards named by URLs may lie on loopback, private and link-local addresses
  bool use_proxy = false;            ///< such shards come by the proxy that http_proxy and https_proxy name
  bool pad_to_max_length = false;    ///< captions are padded to max_token_length instead of the batch's longest
};

}  // namespace mdm
