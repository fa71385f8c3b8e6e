#include "sim/gpu.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/text.h"
#include "sim/options.h"
#include "sim/protocol.h"

namespace gpumod::sim {

namespace {

constexpr Duration longest_wait = std::chrono::hours(24);

std::vector<std::string> words_of(std::string_view text, char separator) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const auto end = std::min(text.find(separator), text.size());
    words.emplace_back(trim(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

template <typename Number>
std::optional<Number> number_in(std::string_view text) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// The GPUs a CUDA program sees, by NVML's index: all, or those that CUDA_VISIBLE_DEVICES names by index or by the
/// beginning of a UUID; MIG devices only by that. As with CUDA, the first name that fits nothing hides itself and all behind it.
std::vector<int> visible_devices(const std::vector<std::string>& uuids) {
  std::vector<int> visible;
  const char* wanted = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!wanted) {
    for (int index = 0; index < static_cast<int>(uuids.size()); ++index)
      if (!uuids[static_cast<std::size_t>(index)].starts_with("MIG-")) visible.push_back(index);
    return visible;
  }
  for (const auto& name : words_of(wanted, ',')) {
    int found = number_in<int>(name).value_or(-1);
    if (name.starts_with("GPU-") || name.starts_with("MIG-")) {
      const auto uuid =
          std::find_if(uuids.begin(), uuids.end(), [&](const std::string& known) { return known.starts_with(name); });
      if (uuid != uuids.end()) found = static_cast<int>(uuid - uuids.begin());
    }
    const bool twice = std::find(visible.begin(), visible.end(), found) != visible.end();
    if (found < 0 || found >= static_cast<int>(uuids.size()) || twice) break;
    visible.push_back(found);
  }
  return visible;
}

/// A label is the rest of a line: nothing in it may end that.
std::string one_line(std::string_view text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return line;
}

}  // namespace

Result<Gpu> Gpu::open(int device) {
  const std::string path = environment_variable(socket_variable);
  if (path.empty())
    return fail(ErrorCode::environment, "there is no simulated GPU: GPUMOD_SIM_GPU is not set",
                "Start `gpumod-sim broker --socket PATH --gpu NAME=AMOUNT` and set GPUMOD_SIM_GPU to PATH.");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::environment, fmt::format("the path in GPUMOD_SIM_GPU is too long: {}", path));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Gpu gpu;
  gpu.socket_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!gpu.socket_ || ::connect(gpu.socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(system_error(fmt::format("connect to the simulated GPU at {}", path), errno, ErrorCode::environment));

  const auto visible = visible_devices(words_of(TRY(gpu.ask("gpus")), ' '));
  if (device < 0 || device >= static_cast<int>(visible.size()))
    return fail(ErrorCode::environment, fmt::format("no CUDA device {}: {} visible", device, visible.size()),
                "See CUDA_VISIBLE_DEVICES.");
  gpu.index_ = visible[static_cast<std::size_t>(device)];
  return gpu;
}

/// Sends one line and gives what stands behind "ok " in the answer. Errors: environment when the broker is gone, failed
/// with the broker's message when it says no.
Result<std::string> Gpu::ask(std::string_view line) {
  const std::string request = std::string(line) + '\n';
  for (std::size_t sent = 0; sent < request.size();) {
    const ssize_t n = ::send(socket_.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(system_error("ask the simulated GPU", errno, ErrorCode::environment));
    sent += static_cast<std::size_t>(n);
  }
  std::string answer;
  while (!answer.ends_with('\n')) {
    char buffer[4096];
    const ssize_t n = ::recv(socket_.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(system_error("hear the simulated GPU", errno, ErrorCode::environment));
    if (n == 0) return fail(ErrorCode::environment, "the simulated GPU is gone: its broker has ended");
    answer.append(buffer, static_cast<std::size_t>(n));
  }
  answer.pop_back();
  if (answer == "ok") return std::string();
  if (answer.starts_with("ok ")) return answer.substr(3);
  // "error CODE MESSAGE": the code is for programs of another kind.
  std::string_view message = answer;
  for (int word = 0; word < 2; ++word)
    message.remove_prefix(std::min(message.find(' ') + 1, message.size()));
  return fail(ErrorCode::failed, std::string(message));
}

Result<Gpu::Memory> Gpu::memory() {
  const std::string answer = TRY(ask(fmt::format("memory {}", index_)));
  const auto words = words_of(answer, ' ');
  std::vector<std::int64_t> figures;
  for (const auto& word : words)
    figures.push_back(number_in<std::int64_t>(word).value_or(-1));
  if (figures.size() != 4 || std::count(figures.begin(), figures.end(), -1) != 0)
    return fail(ErrorCode::environment, fmt::format("the simulated GPU answered '{}'", answer));
  // CUDA counts without what the driver keeps for itself: a 24564 MiB card has "a total capacity of 23.65 GiB".
  return Memory{Bytes(figures[0] - figures[1]), Bytes(figures[3])};
}

Result<void> Gpu::allocate(std::string_view label, Bytes amount) {
  TRY(ask(fmt::format("allocate {} {} {}", index_, amount.count(), one_line(label))));
  return {};
}

Result<void> Gpu::release(std::string_view label) {
  TRY(ask(fmt::format("release {} {}", index_, one_line(label))));
  return {};
}

Result<void> Gpu::wait_for_free(Bytes amount, Duration patience) {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(std::min(scaled(patience), longest_wait));
  TRY(ask(fmt::format("wait {} {} {}", index_, amount.count(), milliseconds.count())));
  return {};
}

Result<void> Gpu::wait_for_label(std::string_view label, Duration patience) {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(std::min(scaled(patience), longest_wait));
  TRY(ask(fmt::format("held {} {} {}", index_, milliseconds.count(), one_line(label))));
  return {};
}

Result<void> Gpu::show_as(std::string_view kind) {
  TRY(ask(fmt::format("kind {} {}", index_, one_line(kind))));
  return {};
}

}  // namespace gpumod::sim
