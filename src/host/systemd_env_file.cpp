#include "host/systemd_env_file.h"

#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"

namespace gpumod {

namespace {

/// MAX_ARG_STRLEN of the kernel: 32 pages, the terminating NUL included. execve(2) fails with E2BIG beyond.
constexpr std::size_t assignment_bytes_max = 128 * 1024 - 1;

bool is_variable_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (name.empty() || !letter(name.front())) return false;
  for (const char c : name)
    if (!letter(c) && !(c >= '0' && c <= '9')) return false;
  return true;
}

/// Valid UTF-8 that systemd rejects all the same: U+FDD0 to U+FDEF, and the last two code points of each plane.
bool holds_noncharacter(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i + 2 < text.size(); ++i) {
    if (byte(i) == 0xEF && byte(i + 1) == 0xB7 && byte(i + 2) >= 0x90 && byte(i + 2) <= 0xAF) return true;
    if (byte(i) == 0xEF && byte(i + 1) == 0xBF && byte(i + 2) >= 0xBE) return true;
    if (byte(i) >= 0xF0 && i + 3 < text.size() && (byte(i + 1) & 0x0F) == 0x0F && byte(i + 2) == 0xBF &&
        byte(i + 3) >= 0xBE)
      return true;
  }
  return false;
}

/// systemd's reader takes everything between double quotes literally, line ends and white space included, except that
/// a backslash before one of these four characters is removed (and a backslash before a line end removes both).
std::string quote_value(std::string_view value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\' || c == '`' || c == '$') text += '\\';
    text += c;
  }
  return text + '"';
}

}  // namespace

Result<std::string> environment_file_text(const std::map<std::string, Secret>& environment) {
  std::string text;
  for (const auto& [name, secret] : environment) {
    const auto& value = secret.reveal();
    if (!is_variable_name(name))
      return fail(ErrorCode::configuration,
                  fmt::format("'{}' cannot be the name of an environment variable", printable(name)),
                  "Use letters, digits and '_', and do not begin with a digit.");
    if (value.find('\0') != std::string::npos)
      return fail(ErrorCode::configuration,
                  fmt::format("the value of {} contains a NUL byte, which no environment can hold", name));
    if (!is_valid_utf8(value) || holds_noncharacter(value))
      return fail(ErrorCode::configuration,
                  fmt::format("the value of {} is not text in UTF-8, and systemd takes nothing else", name),
                  "Encode it (base64, for instance), or let the server read it from a file.");
    if (name.size() + 1 + value.size() > assignment_bytes_max)
      return fail(ErrorCode::configuration,
                  fmt::format("the value of {} is {} bytes long; Linux takes at most 128 KiB for one variable", name,
                              value.size()),
                  "Put it into a file and pass the file's path.");
    text += fmt::format("{}={}\n", name, quote_value(value));
  }
  return text;
}

std::string without_glob(std::string_view path) {
  std::string text;
  for (const char c : path) {
    if (c == '*' || c == '?' || c == '[' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::filesystem::path environment_file_path(const std::filesystem::path& folder, const std::string& unit) {
  return folder / (unit + ".env");
}

Result<std::filesystem::path> write_environment_file(const std::filesystem::path& folder, const std::string& unit,
                                                     const std::map<std::string, Secret>& environment) {
  const auto text = TRY(environment_file_text(environment));
  TRY(make_directories(folder, 0700));
  auto path = environment_file_path(folder, unit);
  TRY(write_file_atomically(path, text, 0600));
  return path;
}

}  // namespace gpumod
