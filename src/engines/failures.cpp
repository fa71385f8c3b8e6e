#include "engines/failures.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "engines/failure_tables.h"
#include "engines/reply.h"

namespace gpumod {

namespace {

using Class = FailureCause::Class;

/// The last and least informative lines: they only point back.
constexpr std::string_view pointing_back[] = {"See root cause above", "See stack trace for",
                                              "Application startup failed", "EngineDeadError"};

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name(char c) {
  return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '_' || c == '.';
}

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() &&
         std::equal(prefix.begin(), prefix.end(), text.begin(), [](char a, char b) { return lower(a) == lower(b); });
}

/// Length of the number at the start: a separator belongs to it only between digits, so a full stop does not.
std::size_t number_length(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() &&
         (is_digit(text[i]) || (i > 0 && (text[i] == '.' || text[i] == ',') && is_digit(text[i - 1]) &&
                                i + 1 < text.size() && is_digit(text[i + 1]))))
    ++i;
  return i;
}

std::size_t word_length(std::string_view text) {
  std::size_t i = text.find_first_of(" \t'\"`()[]{}<>,;");
  if (i == std::string_view::npos) i = text.size();
  while (i > 0 && (text[i - 1] == '.' || text[i - 1] == ':'))
    --i;
  return i;
}

/// One attempt at one line. `budget` bounds the backtracking, so that no line can keep us.
struct Matcher {
  std::vector<std::string> captured;
  int budget = 100'000;

  bool match(std::string_view pattern, std::string_view text) {
    if (--budget < 0) return false;
    if (pattern.empty()) return true;
    if (pattern.front() == '*') return skip(pattern.substr(1), text);
    if (pattern.starts_with("<n>")) return take(pattern.substr(3), text, number_length(text));
    if (pattern.starts_with("<w>")) return take(pattern.substr(3), text, word_length(text));
    if (pattern.starts_with("<t>")) return take_until(pattern.substr(3), text);
    const auto literal = pattern.substr(0, std::min(pattern.find('*'), pattern.find('<')));
    return starts_with(text, literal) && match(pattern.substr(literal.size()), text.substr(literal.size()));
  }

  /// The next place where `pattern` matches; keeps what an attempt that failed had captured out.
  bool skip(std::string_view pattern, std::string_view text) {
    const auto before = captured.size();
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (may_start(pattern, text.substr(i)) && match(pattern, text.substr(i))) return true;
      captured.resize(before);
      if (--budget < 0) return false;
    }
    return false;
  }

  bool take(std::string_view pattern, std::string_view text, std::size_t length) {
    if (length == 0) return false;
    captured.emplace_back(text.substr(0, length));
    return match(pattern, text.substr(length));
  }

  bool take_until(std::string_view pattern, std::string_view text) {
    if (pattern.empty()) return take(pattern, text, text.size());
    const auto place = captured.size();
    for (std::size_t i = 1; i <= text.size(); ++i) {
      if (--budget < 0) return false;
      if (!may_start(pattern, text.substr(i))) continue;
      captured.emplace_back(text.substr(0, i));
      if (match(pattern, text.substr(i))) return true;
      captured.resize(place);
    }
    return false;
  }

  /// Cheap look ahead: a literal must begin here.
  static bool may_start(std::string_view pattern, std::string_view text) {
    if (pattern.empty() || pattern.front() == '*' || pattern.front() == '<') return true;
    return !text.empty() && lower(pattern.front()) == lower(text.front());
  }
};

std::string filled_in(std::string_view text, const std::vector<std::string>& captured) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool hole = text[i] == '{' && i + 2 < text.size() && is_digit(text[i + 1]) && text[i + 2] == '}';
    if (!hole) {
      result += text[i];
      continue;
    }
    const auto place = static_cast<std::size_t>(text[i + 1] - '1');
    result += place < captured.size() ? shorten(captured[place], 120) : "?";
    i += 2;
  }
  return result;
}

/// What a line says without the decoration of loggers: "(EngineCore_0 pid=7) ERROR 11-22 21:03:11 [core.py:8] x" → "x".
struct Statement {
  std::string_view text;
  bool warning = false;  ///< or less: information, debugging
  bool error = false;
};

std::string_view without_parenthesised_prefix(std::string_view text) {
  text = trim(text);
  while (text.starts_with("(")) {
    const auto end = text.find(')');
    if (end == std::string_view::npos) break;
    text = trim(text.substr(end + 1));
  }
  return text;
}

Statement python_statement(std::string_view line) {
  Statement statement{without_parenthesised_prefix(line)};
  for (const std::string_view level : {"WARNING", "INFO", "DEBUG", "ERROR", "CRITICAL"}) {
    if (!statement.text.starts_with(level)) continue;
    const auto rest = statement.text.substr(level.size());
    if (rest.empty() || (rest[0] != ' ' && rest[0] != ':')) break;
    statement.error = level == "ERROR" || level == "CRITICAL";
    statement.warning = !statement.error;
    const auto bracket = rest.find("] ");
    statement.text = trim(bracket == std::string_view::npos ? rest.substr(1) : rest.substr(bracket + 1));
    break;
  }
  return statement;
}

/// llama.cpp: "[55433] 0.00.023.659 E tag: text" (a router puts the child's port first), older builds only "text".
Statement llama_statement(std::string_view line) {
  Statement statement{trim(line)};
  if (statement.text.starts_with("[")) {
    const auto end = statement.text.find("] ");
    if (end != std::string_view::npos) statement.text = trim(statement.text.substr(end + 1));
  }
  const auto stamp = statement.text.find(' ');
  const bool has_level = stamp != std::string_view::npos && stamp + 2 < statement.text.size() &&
                         statement.text[stamp + 2] == ' ' && is_digit(statement.text[0]);
  if (has_level) {
    const char level = statement.text[stamp + 1];
    statement.error = level == 'E';
    statement.warning = level == 'W' || level == 'I' || level == 'D';
    statement.text = trim(statement.text.substr(stamp + 2));
  } else {
    statement.error = starts_with(statement.text, "error:");
  }
  return statement;
}

/// "ValueError: …", "torch.cuda.OutOfMemoryError: …"
bool is_exception(std::string_view text) {
  std::size_t end = 0;
  while (end < text.size() && is_name(text[end]))
    ++end;
  const auto name = text.substr(0, end);
  return (name.ends_with("Error") || name.ends_with("Exception")) && text.substr(end).starts_with(": ");
}

bool says_error(std::string_view text) {
  return starts_with(text, "error:") || starts_with(text, "fatal:") || starts_with(text, "panic:") ||
         starts_with(text, "fatal error:");
}

}  // namespace

std::vector<const FailureSignature*> signatures_of(EngineKind engine) {
  std::vector<const FailureSignature*> all;
  const auto add = [&](std::span<const FailureSignature> table) {
    for (const auto& signature : table)
      all.push_back(&signature);
  };
  // A command may be any of them.
  if (engine == EngineKind::vllm || engine == EngineKind::command) add(vllm_failures());
  if (engine == EngineKind::llamacpp || engine == EngineKind::command) add(llama_failures());
  if (engine != EngineKind::llamacpp) add(python_failures());
  add(machine_failures());
  return all;
}

std::optional<std::vector<std::string>> match_pattern(std::string_view pattern, std::string_view line) {
  Matcher matcher;
  if (!matcher.skip(pattern, line)) return std::nullopt;
  return std::move(matcher.captured);
}

namespace {

constexpr std::size_t longest_line = 4096;

Statement statement_of(EngineKind engine, std::string_view line) {
  return engine == EngineKind::llamacpp ? llama_statement(line) : python_statement(line);
}

FailureCause caused_by(const FailureSignature& signature, const std::vector<std::string>& captured,
                       std::string_view line) {
  FailureCause cause{signature.kind, filled_in(signature.cause, captured), filled_in(signature.remedy, captured),
                     shorten(line, 500)};
  cause.subject = signature.subject;
  if (signature.subject_hole > 0 && signature.subject_hole <= captured.size())
    cause.subject_name = captured[signature.subject_hole - 1];
  return cause;
}

}  // namespace

FailureCause first_cause(EngineKind engine, const std::vector<LogLine>& log) {
  const auto signatures = signatures_of(engine);
  std::optional<FailureCause> exception;
  std::optional<FailureCause> last_resort;

  for (const auto& entry : log) {
    const auto line = std::string_view(entry.text).substr(0, longest_line);
    const auto statement = statement_of(engine, line);
    if (statement.warning || statement.text.empty()) continue;
    for (const auto* signature : signatures)
      if (const auto captured = match_pattern(signature->pattern, statement.text))
        return caused_by(*signature, *captured, line);
    const bool tells = is_exception(statement.text) || says_error(statement.text) ||
                       (engine == EngineKind::llamacpp && statement.error);
    if (!tells) continue;
    const bool points_back = std::any_of(std::begin(pointing_back), std::end(pointing_back), [&](const auto words) {
      return statement.text.find(words) != std::string_view::npos;
    });
    auto& place = points_back ? last_resort : exception;
    if (!place) place = FailureCause{Class::unknown, shorten(statement.text, 300), {}, shorten(line, 500)};
  }
  if (exception) return *exception;
  return last_resort.value_or(FailureCause{});
}

std::optional<FailureCause> conclusive_cause(EngineKind engine, std::string_view whole) {
  const auto line = whole.substr(0, longest_line);
  const auto statement = statement_of(engine, line);
  if (statement.warning || statement.text.empty()) return std::nullopt;
  for (const auto* signature : signatures_of(engine)) {
    const auto captured = match_pattern(signature->pattern, statement.text);
    if (!captured) continue;
    if (signature->proof != FailureSignature::Proof::at_once) return std::nullopt;
    return caused_by(*signature, *captured, line);
  }
  return std::nullopt;
}

std::string_view to_string(FailureCause::Class kind) {
  switch (kind) {
    case Class::transient: return "transient";
    case Class::configuration: return "configuration";
    case Class::model: return "model";
    case Class::unknown: break;
  }
  return "unknown";
}

}  // namespace gpumod
