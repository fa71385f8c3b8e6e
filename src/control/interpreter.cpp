#include "control/interpreter.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// execve(2) looks at no more of the line than this (BINPRM_BUF_SIZE).
constexpr std::size_t first_line_limit = 256;

}  // namespace

std::string interpreter_of(const fs::path& program) {
  // A FIFO must not block us, so the descriptor does not.
  const Fd file(::open(program.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  char buffer[first_line_limit];
  const ssize_t size = file ? ::pread(file.get(), buffer, sizeof buffer, 0) : -1;
  if (size <= 2 || buffer[0] != '#' || buffer[1] != '!') return {};
  std::string_view line(buffer, static_cast<std::size_t>(size));
  line = trim(line.substr(2, line.find('\n') - 2));
  return std::string(line.substr(0, line.find_first_of(" \t")));
}

std::optional<Error> lost_interpreter(const fs::path& program) {
  const fs::path interpreter = interpreter_of(program);
  std::error_code problem;
  if (!interpreter.is_absolute() || fs::exists(interpreter, problem) || problem) return std::nullopt;
  const auto target = fs::read_symlink(interpreter, problem);
  const auto gone =
      problem ? interpreter.string() : fmt::format("{} (a link to {})", interpreter.string(), target.string());
  const auto environment = interpreter.parent_path().parent_path();
  if (fs::exists(environment / "pyvenv.cfg", problem))
    return Error{ErrorCode::refused,
                 fmt::format("{} cannot be started: the virtual environment {} has lost its Python, {}",
                             program.string(), environment.string(), gone),
                 fmt::format("Make the environment anew: python3 -m venv --clear {}, then install into it again.",
                             environment.string()),
                 {}};
  return Error{ErrorCode::refused,
               fmt::format("{} cannot be started: its first line names {}, which is not there", program.string(), gone),
               "Install that interpreter, or correct the first line.",
               {}};
}

}  // namespace gpumod
