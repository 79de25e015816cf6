// Pictures to JPEG files.
#pragma once

#include <string>

#include "mdm/media/image.h"

namespace mdm {

/// The file as bytes: baseline, YCbCr with colours at half the resolution (4:2:0), or gray of a picture with 1 channel.
/// `quality`: libjpeg's, 1 to 100. Error when it is out of range or the picture has alpha.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace mdm
