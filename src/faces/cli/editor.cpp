#include "faces/cli/editor.h"

#include <cstdlib>
#include <filesystem>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "faces/cli/ask.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"

extern char** environ;

namespace gpumod::cli {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t text_limit = 1 << 20;

std::vector<std::string> split_at_blanks(std::string_view words) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : words) {
    if (c != ' ' && c != '\t') {
      part += c;
    } else if (!part.empty()) {
      parts.push_back(std::move(part));
      part.clear();
    }
  }
  if (!part.empty()) parts.push_back(std::move(part));
  return parts;
}

bool on_path(std::string_view program) {
  std::string path = environment_variable("PATH");
  while (!path.empty()) {
    const auto end = path.find(':');
    if (::access((path.substr(0, end) + "/" + std::string(program)).c_str(), X_OK) == 0) return true;
    path = end == std::string::npos ? "" : path.substr(end + 1);
  }
  return false;
}

/// A folder of our own for the copy: an editor may put its swap and backup files beside it.
class Copy {
 public:
  static Result<Copy> make(const std::string& name, const std::string& text) {
    // mkdtemp(3) replaces the six X.
    std::string folder = (fs::temp_directory_path() / "gpumod-edit-XXXXXX").string();
    if (!::mkdtemp(folder.data()))
      return fail(system_error(fmt::format("create {}", folder), errno, ErrorCode::environment));
    Copy copy(fs::path(folder) / (name + ".yaml"));
    TRY(write_file_atomically(copy.path_, text, 0600));
    return copy;
  }
  Copy(Copy&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  Copy& operator=(Copy&&) = delete;
  ~Copy() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_.parent_path(), ignored);
  }
  const fs::path& path() const { return path_; }
  /// It stays, for the person to go on with.
  fs::path keep() { return std::exchange(path_, {}); }

 private:
  explicit Copy(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

/// Runs it on our terminal and waits. Ctrl-C there is the editor's, as with a shell.
Result<void> run_and_wait(std::vector<std::string> command) {
  std::vector<char*> argv;
  for (auto& word : command)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  struct sigaction ignore {
  }, interrupt{}, quit{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGINT, &ignore, &interrupt);
  ::sigaction(SIGQUIT, &ignore, &quit);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t defaults;
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGINT);
  ::sigaddset(&defaults, SIGQUIT);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  pid_t pid = 0;
  const int problem = ::posix_spawnp(&pid, argv[0], nullptr, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  int status = 0;
  while (problem == 0 && ::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  ::sigaction(SIGINT, &interrupt, nullptr);
  ::sigaction(SIGQUIT, &quit, nullptr);
  if (problem != 0)
    return fail(Error{ErrorCode::environment,
                      system_error(fmt::format("start the editor '{}'", printable(command[0])), problem).message,
                      "Set VISUAL or EDITOR to one that is installed.",
                      {}});
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(ErrorCode::failed,
                fmt::format("the editor '{}' did not end well; nothing was changed", printable(command[0])));
  return {};
}

Error kept(Error error, Copy& copy) {
  error.hint = fmt::format("{}{}Your text is in {}.", error.hint, error.hint.empty() ? "" : " ", copy.keep().string());
  return error;
}

}  // namespace

Result<std::vector<std::string>> editor_command(bool on_terminal) {
  for (const char* name : {"VISUAL", "EDITOR"})
    if (auto words = split_at_blanks(environment_variable(name)); !words.empty()) return words;
  if (on_terminal)
    for (const char* name : {"sensible-editor", "vi"})
      if (on_path(name)) return std::vector<std::string>{name};
  return fail(ErrorCode::environment, "there is no editor to start",
              "Set VISUAL or EDITOR, or give the new content with --text.");
}

int run_editor(const Paths& paths, const Invocation& invocation, const Output& output) {
  const auto original = call(paths, *invocation.verb, invocation.request, output);
  if (!original) return conclude(original.error(), output);
  const auto command = editor_command(can_ask());
  if (!command) return conclude(command.error(), output);
  const auto before = raw_text(member(*original, "text"));
  auto copy = Copy::make(text_of(invocation.request, "mode"), before);
  if (!copy) return conclude(copy.error(), output);
  for (;;) {
    auto words = *command;
    words.push_back(copy->path().string());
    if (const auto ran = run_and_wait(std::move(words)); !ran) return conclude(ran.error(), output);
    const auto after = read_file(copy->path(), text_limit);
    if (!after) return conclude(kept(after.error(), *copy), output);
    if (*after == before) {
      print(fmt::format("{} is unchanged.\n", text(member(*original, "file"))));
      return 0;
    }
    if (!is_valid_utf8(*after))
      return conclude(kept(Error{ErrorCode::configuration, "the text is not UTF-8", {}, {}}, *copy), output);
    json::object request = invocation.request;
    request["text"] = *after;
    const auto answer = call(paths, *invocation.verb, request, output);
    if (answer) return conclude(invocation, answer, output);
    if (!can_ask()) return conclude(kept(answer.error(), *copy), output);
    complain(render_error(answer.error(), output.err));
    if (!ask("Edit it again?", true)) {
      complain(fmt::format("Your text is in {}.\n", copy->keep().string()));
      return exit_code(answer.error());
    }
  }
}

}  // namespace gpumod::cli
