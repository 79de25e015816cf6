// Where S3's credentials and endpoints are found, and s3:// URLs as text: what needs no libcurl.
#include <strings.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <system_error>

#include "mdm/core/files.h"
#include "mdm/net/http_client.h"
#include "mdm/net/s3.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : trimmed(value);
}

// Name -> value of one section; what stands indented below "s3 =" is "s3.NAME".
using Section = std::map<std::string, std::string>;
using Sections = std::map<std::string, Section>;

// "profile x", "profile \"x\"" -> "x" (in the config file; "default" may stand alone); "services x" stays.
std::string section_name(std::string name) {
  constexpr std::string_view kProfile = "profile";
  if (name.size() > kProfile.size() && name.compare(0, kProfile.size(), kProfile) == 0 &&
      (name[kProfile.size()] == ' ' || name[kProfile.size()] == '\t')) {
    name = trimmed(std::string_view(name).substr(kProfile.size()));
    if (name.size() >= 2 && (name.front() == '"' || name.front() == '\'') && name.back() == name.front()) {
      name = name.substr(1, name.size() - 2);
    }
  }
  return name;
}

// Names without their prefix "profile " only in the config file: the credentials file has none.
Sections read_profiles(const fs::path& file, bool is_config) {
  Sections sections;
  std::error_code code;
  if (file.empty() || !fs::exists(file, code)) return sections;
  std::string text;
  try {
    text = read_text_file(file, size_t{1} << 20);
  } catch (const Error& error) {
    fail<ConfigError>(error.what());
  }
  Section* section = nullptr;
  std::string group;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string raw = text.substr(at, end - at), line = trimmed(raw);
    at = end + 1;
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      const std::string name = trimmed(line.substr(1, line.find(']') - 1));
      section = &sections[is_config ? section_name(name) : name];
      group.clear();
      continue;
    }
    const size_t equals = line.find('=');
    if (section == nullptr || equals == std::string::npos) continue;
    const std::string name = trimmed(line.substr(0, equals)), value = trimmed(line.substr(equals + 1));
    const bool indented = raw[0] == ' ' || raw[0] == '\t';
    if (!indented) group = value.empty() ? name : "";
    (*section)[indented && !group.empty() ? group + '.' + name : name] = value;
  }
  return sections;
}

fs::path home_file(const char* override_name, const char* usual) {
  const std::string home = variable("HOME"), named = variable(override_name);
  if (named.compare(0, 2, "~/") == 0) return fs::path(home) / named.substr(2);
  if (!named.empty()) return named;
  return home.empty() ? fs::path() : fs::path(home) / ".aws" / usual;
}

std::string value_of(const Section& section, const std::string& name) {
  const auto found = section.find(name);
  return found == section.end() ? std::string() : found->second;
}

// Takes the pair of keys, and the token that belongs to it. False when there is none.
bool take_keys(S3Options& options, const std::string& id, const std::string& secret, const std::string& token,
               const std::string& where) {
  if (id.empty() != secret.empty()) {
    fail<ConfigError>(
        where, ": there is a",
        id.empty() ? " secret access key without an access key id" : "n access key id without a secret access key");
  }
  if (id.empty()) return false;
  options.access_key_id = id;
  options.secret_access_key = secret;
  options.session_token = token;
  return true;
}

bool take_keys(S3Options& options, const Section& section, const std::string& where) {
  return take_keys(options, value_of(section, "aws_access_key_id"), value_of(section, "aws_secret_access_key"),
                   value_of(section, "aws_session_token"), where);
}

// The files' sections of one profile.
struct Profile {
  explicit Profile(const std::string& asked) {
    const std::string variable_name = variable("AWS_PROFILE");
    name = !asked.empty() ? asked : !variable_name.empty() ? variable_name : "default";
    const fs::path credentials_file = home_file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
    const fs::path config_file = home_file("AWS_CONFIG_FILE", "config");
    const Sections in_credentials = read_profiles(credentials_file, false);
    const Sections in_config = read_profiles(config_file, true);
    const auto first = in_credentials.find(name), second = in_config.find(name);
    const bool known = first != in_credentials.end() || second != in_config.end();
    if (!known && (!asked.empty() || !variable_name.empty())) {
      fail<ConfigError>("the profile '", printable(name), "' is in neither ",
                        printable(credentials_file.string(), 1000), " nor ", printable(config_file.string(), 1000));
    }
    if (first != in_credentials.end()) credentials = first->second;
    if (second != in_config.end()) config = second->second;
    const std::string services_name = value_of(config, "services");
    const auto found = in_config.find("services " + services_name);
    if (!services_name.empty() && found != in_config.end()) services = found->second;
  }

  void take_keys_into(S3Options& options) const {
    const std::string where = concat("profile '", printable(name), "'");
    if (take_keys(options, credentials, where) || take_keys(options, config, where)) return;
    for (const char* other : {"role_arn", "credential_process", "sso_session", "sso_start_url", "login_session"}) {
      if (value_of(config, other).empty() && value_of(credentials, other).empty()) continue;
      fail<ConfigError>(where, ": gets its credentials by ", other, ", which is not supported; put the keys into the ",
                        "environment instead (`aws configure export-credentials --format env` prints them)");
    }
  }

  std::string endpoint() const {
    const std::string own = value_of(services, "s3.endpoint_url");
    return own.empty() ? value_of(config, "endpoint_url") : own;
  }

  std::string name;
  Section credentials, config, services;
};

}  // namespace

S3Options S3Options::from_environment(const std::string& endpoint, const std::string& profile, bool anonymous) {
  S3Options options;
  options.anonymous = anonymous;
  const bool by_variables = !anonymous && profile.empty() &&
                            take_keys(options, variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"),
                                      variable("AWS_SESSION_TOKEN"), "the environment");
  const Profile files(profile);
  if (!by_variables && !anonymous) files.take_keys_into(options);
  for (const std::string& region :
       {variable("AWS_REGION"), variable("AWS_DEFAULT_REGION"), value_of(files.config, "region")}) {
    if (options.region.empty()) options.region = region;
  }
  options.endpoint = endpoint;
  if (options.endpoint.empty() && ::strcasecmp(variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").c_str(), "true") != 0) {
    for (const std::string& url : {variable("AWS_ENDPOINT_URL_S3"), variable("AWS_ENDPOINT_URL"), files.endpoint()}) {
      if (options.endpoint.empty()) options.endpoint = url;
    }
  }
  const std::string style = value_of(files.config, "s3.addressing_style");
  if (style == "path" || style == "virtual") options.path_style = style == "path";
  return options;
}

bool is_s3_url(std::string_view text) {
  constexpr std::string_view kScheme = "s3://";
  return text.size() >= kScheme.size() && ::strncasecmp(text.data(), kScheme.data(), kScheme.size()) == 0;
}

S3Location parse_s3_url(std::string_view url) {
  constexpr size_t kLongestKey = 4096, kLongestBucket = 255;  // S3 itself allows 1024 and 63
  const auto bad = [&](const char* why) { throw NetError(NetError::Kind::kUrl, concat(shown_url(url), ": ", why)); };
  if (!is_s3_url(url)) bad("is no s3:// URL");
  const std::string_view rest = url.substr(5);
  const size_t slash = std::min(rest.find('/'), rest.size());
  S3Location place{std::string(rest.substr(0, slash)), std::string(rest.substr(std::min(slash + 1, rest.size())))};
  constexpr char kLetters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (place.bucket.empty()) bad("names no bucket");
  if (place.bucket.size() > kLongestBucket || place.bucket[0] == '.' ||
      place.bucket.find_first_not_of(kLetters) != std::string::npos) {
    bad("names no bucket: its name is one of letters, digits, '.', '-' and '_'");
  }
  if (place.key.size() > kLongestKey) bad("the key is longer than 4096 bytes");
  return place;
}

}  // namespace mdm
