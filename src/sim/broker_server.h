// The broker's sockets and processes around Requests. One thread, one poll(): who connects is known by SO_PEERCRED, and
// a pidfd says when that process has ended.
//
// Not on base/async.h: the order in which one poll() reports a process's end and another process's question matters
// here. Whoever has seen a process end (waitpid, a pidfd) and then asks must find its memory returning, as with a real
// driver, which frees before the exit is visible.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sim/requests.h"

namespace gpumod::sim {

class BrokerServer {
 public:
  /// Listens at `path` with mode 0600; a socket that nobody listens on any more is replaced. Errors: busy when a broker
  /// listens there, failed otherwise.
  static Result<BrokerServer> listen(const std::string& path, Requests::Setup setup);
  /// Answers until `stop` (a signalfd, an eventfd) is readable, then removes the socket.
  Result<void> run(int stop);

 private:
  struct Process {
    Fd pidfd;
    std::string command;  ///< the last one seen
    bool ended = false;
  };
  struct Client {
    Fd socket;
    HolderId process;
    std::string in;
    std::string out;
    std::optional<Waiting> waiting;
    bool heard_all = false;  ///< the peer sends no more
    bool broken = false;
  };
  using Processes = std::map<HolderId, Process>;

  BrokerServer() = default;
  void accept_clients();
  void end_process(HolderId id, Process& process, TimePoint now);
  void read_from(Client& client);
  void serve(Client& client);
  void write_to(Client& client);
  void forget_what_is_over();
  int timeout_ms(TimePoint now) const;

  std::string path_;
  std::uint64_t inode_ = 0;
  Fd listener_;
  std::shared_ptr<Processes> processes_;  ///< shared with what tells Requests their names
  std::unique_ptr<Requests> requests_;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace gpumod::sim
