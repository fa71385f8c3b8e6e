#include "verbs/unit_text.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "host/systemd_env_file.h"

namespace gpumod {

namespace {

constexpr std::string_view mark = "# Written by gpumod; edits stop gpumod from replacing it\n";
constexpr std::string_view checksum_key = "# checksum: ";

/// FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/).
std::string checksum(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return fmt::format("{:016x}", hash);
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

std::string without_specifiers(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '%') escaped += '%';
    escaped += c;
  }
  return escaped;
}

/// One word of a command line, quoted whenever it could be read as anything but itself.
std::string quoted_word(std::string_view word) {
  constexpr std::string_view plain_punctuation = "@%_+=:,./-$~^!?*#&()[]{}<>|";
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           plain_punctuation.find(c) != std::string_view::npos;
  });
  const auto text = without_specifiers(word);
  if (plain) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      quoted += fmt::format("\\{}", c);
    else if (c == '\n')
      quoted += "\\n";
    else if (c == '\t')
      quoted += "\\t";
    else if (is_control(c))
      quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      quoted += c;
  }
  return quoted + '"';
}

Result<std::string> command_line(const std::vector<std::string>& argv, std::string_view what) {
  if (argv.empty() || !argv.front().starts_with('/'))
    return fail(ErrorCode::configuration, fmt::format("the {} does not begin with an absolute path", what));
  for (const auto& word : argv)
    if (!is_valid_utf8(word) || word.find('\0') != std::string::npos)
      return fail(ErrorCode::configuration,
                  fmt::format("'{}' in the {} is not text in UTF-8, and a unit file holds nothing else",
                              printable(word), what));
  const auto& program = argv.front();
  // systemd refuses such programs even when they are escaped.
  if (std::any_of(program.begin(), program.end(),
                  [](char c) { return c == '"' || c == '\'' || c == '\\' || is_control(c); }))
    return fail(ErrorCode::configuration,
                fmt::format("systemd starts no program whose path holds quotes or backslashes: {}", printable(program)),
                "Rename it, or give it a link with a plain name.");
  // The ':' keeps $ from being taken for a variable. It goes inside the quotes: they are only known at a word's ends.
  std::string line = quoted_word(":" + program);
  for (std::size_t i = 1; i < argv.size(); ++i)
    line += " " + quoted_word(argv[i]);
  return line;
}

Result<std::string> path_value(const std::string& path, std::string_view what) {
  const bool wrong = !is_valid_utf8(path) || std::any_of(path.begin(), path.end(), is_control) || path.ends_with(' ') ||
                     path.ends_with('\\');
  if (wrong)
    return fail(ErrorCode::configuration, fmt::format("a unit file cannot carry the {} '{}'", what, printable(path)),
                "Use a path without line breaks and without a blank or a backslash at its end.");
  return without_specifiers(path);
}

std::string description_value(const UnitSpec& spec) {
  auto text = printable(spec.description.empty() ? spec.name : spec.description);
  std::replace_if(text.begin(), text.end(), is_control, ' ');
  if (text.ends_with('\\')) text += ' ';  // or the next line would belong to it
  return without_specifiers(text);
}

std::string time_value(Duration time) {
  const auto ms = std::max<std::int64_t>(1, std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
  return ms % 1000 == 0 ? fmt::format("{}s", ms / 1000) : fmt::format("{}ms", ms);
}

}  // namespace

Result<std::string> unit_file_text(const UnitSpec& spec, const std::filesystem::path& environment_file,
                                   const std::vector<std::string>& remarks) {
  std::string rest;
  for (const auto& remark : remarks)
    rest += fmt::format("# {}\n", printable(remark));
  rest += fmt::format("\n[Unit]\nDescription={}\n\n[Service]\n", description_value(spec));
  // exec, so that a program that cannot be executed fails the start.
  rest += "Type=exec\n";
  rest += fmt::format("ExecStart={}\n", TRY(command_line(spec.argv, "command line")));
  if (!spec.stop_argv.empty()) rest += fmt::format("ExecStop={}\n", TRY(command_line(spec.stop_argv, "stop command")));
  if (!spec.working_directory.empty())
    rest += fmt::format("WorkingDirectory={}\n", TRY(path_value(spec.working_directory.string(), "working directory")));
  // By this gpumod knows the unit as its own, whoever starts it.
  rest += fmt::format("Environment=GPUMOD_SERVICE={}\n", spec.tag);
  if (!environment_file.empty())
    rest += fmt::format("EnvironmentFile={}\n",
                        TRY(path_value(without_glob(environment_file.string()), "environment file")));
  rest += fmt::format("TimeoutStopSec={}\n", time_value(spec.stop_timeout));
  rest += "KillMode=control-group\nSendSIGKILL=yes\n";
  rest += "Restart=no\n";
  rest += fmt::format("StandardOutput=journal\nStandardError=journal\nSyslogIdentifier={}\n",
                      spec.name.substr(0, spec.name.rfind('.')));
  rest += "\n[Install]\nWantedBy=default.target\n";
  return fmt::format("{}{}{}\n{}", mark, checksum_key, checksum(rest), rest);
}

Authorship authorship_of(std::string_view text) {
  if (!text.starts_with(mark)) return Authorship::foreign;
  text.remove_prefix(mark.size());
  if (!text.starts_with(checksum_key)) return Authorship::edited;
  text.remove_prefix(checksum_key.size());
  const auto end = text.find('\n');
  if (end == std::string_view::npos) return Authorship::edited;
  return text.substr(0, end) == checksum(text.substr(end + 1)) ? Authorship::ours : Authorship::edited;
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// The character that a backslash makes of `rest`, which is shortened by what it takes.
std::string unescaped(std::string_view& rest) {
  const char c = rest.front();
  rest.remove_prefix(1);
  constexpr std::string_view names = "abfnrtvs\\\"'";
  constexpr std::string_view values = "\a\b\f\n\r\t\v \\\"'";
  if (const auto at = names.find(c); at != std::string_view::npos) return std::string(1, values[at]);
  if (c == 'x' && rest.size() >= 2 && hex_digit(rest[0]) >= 0 && hex_digit(rest[1]) >= 0) {
    const auto byte = static_cast<char>(hex_digit(rest[0]) * 16 + hex_digit(rest[1]));
    rest.remove_prefix(2);
    return std::string(1, byte);
  }
  return std::string("\\") + c;
}

/// The next word, or nothing at the end or where a quote does not close.
std::optional<std::string> next_word(std::string_view& rest) {
  constexpr std::string_view blanks = " \t\r\n";
  rest.remove_prefix(std::min(rest.find_first_not_of(blanks), rest.size()));
  if (rest.empty()) return std::nullopt;
  std::string word;
  char quote = 0;
  while (!rest.empty()) {
    const char c = rest.front();
    if (quote == 0 && blanks.find(c) != std::string_view::npos) break;
    rest.remove_prefix(1);
    if (c == '\\' && !rest.empty())
      word += unescaped(rest);
    else if (quote != 0 && c == quote)
      quote = 0;
    else if (quote == 0 && (c == '"' || c == '\''))
      quote = c;
    else
      word += c;
  }
  if (quote != 0) return std::nullopt;
  return word;
}

std::string with_specifiers(std::string_view word, const std::filesystem::path& home) {
  std::string text;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const char next = word[i] == '%' && i + 1 < word.size() ? word[i + 1] : '\0';
    if (next == '%')
      text += '%';
    else if (next == 'h')
      text += home.string();
    else
      text += word[i];
    if (next == '%' || next == 'h') ++i;
  }
  return text;
}

/// Logical lines: comments and blank ones left out, continued ones joined by a blank.
std::vector<std::string> logical_lines(std::string_view text) {
  std::vector<std::string> lines;
  std::string open;
  for (const auto physical : split_lines(text)) {
    const auto line = trim(physical);
    if (line.starts_with('#') || line.starts_with(';') || (line.empty() && open.empty())) continue;
    // An even number of backslashes is escaped ones.
    const auto last = line.find_last_not_of('\\');
    const auto backslashes = line.size() - (last == std::string_view::npos ? 0 : last + 1);
    open += line;
    if (backslashes % 2 == 1) {
      open.back() = ' ';
      continue;
    }
    lines.push_back(std::exchange(open, {}));
  }
  if (!open.empty()) lines.push_back(std::move(open));
  return lines;
}

}  // namespace

std::vector<std::string> command_words(std::string_view value, const std::filesystem::path& home) {
  std::vector<std::string> words;
  std::string_view rest = value;
  bool variables = true;
  for (;;) {
    rest = trim(rest);
    if (rest == ";" || rest.starts_with("; ")) break;  // another command follows
    auto word = next_word(rest);
    if (!word) break;
    if (words.empty()) {
      const auto program = word->find_first_not_of("@-:+!|");
      variables = word->substr(0, program).find(':') == std::string::npos;
      word->erase(0, program);
    }
    auto text = with_specifiers(*word, home);
    if (variables)
      for (auto at = text.find("$$"); at != std::string::npos; at = text.find("$$", at + 1))
        text.erase(at, 1);
    words.push_back(std::move(text));
  }
  return words;
}

std::vector<std::string> unit_file_values(std::string_view text, std::string_view section, std::string_view key) {
  std::vector<std::string> values;
  bool inside = false;
  for (const auto& line : logical_lines(text)) {
    if (line.starts_with('[')) {
      inside = line == fmt::format("[{}]", section);
      continue;
    }
    const auto equals = line.find('=');
    if (!inside || equals == std::string::npos || trim(std::string_view(line).substr(0, equals)) != key) continue;
    const auto value = trim(std::string_view(line).substr(equals + 1));
    if (value.empty())
      values.clear();
    else
      values.emplace_back(value);
  }
  return values;
}

}  // namespace gpumod
