// A server that is ready when it says: for measuring gpumod itself, not an engine. It answers /health and a chat probe
// with a few system calls, and writes down, in nanoseconds of CLOCK_MONOTONIC, when it became able to answer 200.
//
//   bench_server PORT READY_AFTER_MS STAMP_FILE
//   bench_server PORT READY_AFTER_MS STAMP_FILE FAIL_AFTER_MS
//
// With FAIL_AFTER_MS it never serves: after so long it writes down the time, logs a line that no llama-server survives,
// and lives on.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  using Clock = std::chrono::steady_clock;
  if (argc == 5) {
    ::usleep(static_cast<useconds_t>(std::atoi(argv[4])) * 1000);
    FILE* stamp = std::fopen(argv[3], "w");
    if (!stamp) return 1;
    std::fprintf(stamp, "%lld\n", static_cast<long long>(Clock::now().time_since_epoch().count()));
    std::fclose(stamp);
    std::fprintf(stderr, "0.00.1 E llama_model_load: error loading model: invalid magic\n");
    for (;;)
      ::pause();
  }
  const auto ready_at = Clock::now() + std::chrono::milliseconds(std::atoi(argv[2]));
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[1])));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener, 64) != 0)
    return 1;
  if (FILE* stamp = std::fopen(argv[3], "w")) {
    std::fprintf(stamp, "%lld\n", static_cast<long long>(ready_at.time_since_epoch().count()));
    std::fclose(stamp);
  }
  for (;;) {
    const int peer = ::accept(listener, nullptr, nullptr);
    if (peer < 0) continue;
    char request[8192];
    (void)!::read(peer, request, sizeof request);
    const bool ready = Clock::now() >= ready_at;
    const std::string body =
        ready
            ? R"({"object":"chat.completion","model":"bench","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"ok"}}]})"
            : R"({"error":"loading"})";
    const std::string answer =
        std::string(ready ? "HTTP/1.1 200 OK" : "HTTP/1.1 503 Service Unavailable") +
        "\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) +
        "\r\n\r\n" + body;
    (void)!::write(peer, answer.data(), answer.size());
    ::shutdown(peer, SHUT_WR);
    ::close(peer);
  }
}
