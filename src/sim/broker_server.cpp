#include "sim/broker_server.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "host/processes.h"
#include "sim/protocol.h"

namespace gpumod::sim {

namespace {

constexpr std::size_t most_clients = 400;               // each may cost a socket and a pidfd, of 1024 descriptors
constexpr std::size_t longest_unread_answer = 1 << 20;  // a client that does not read is let go

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::usage,
                fmt::format("a socket cannot stand at '{}': at most {} bytes", path, sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<void> remove_abandoned_socket(const std::string& path, const sockaddr_un& address) {
  struct stat existing {};
  if (::lstat(path.c_str(), &existing) != 0 || !S_ISSOCK(existing.st_mode)) return {};
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
    return fail(ErrorCode::busy, fmt::format("a broker listens at {} already", path));
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  return {};
}

std::optional<HolderId> peer_of(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0) return std::nullopt;
  const auto info = process_info(peer.pid);
  if (!info) return std::nullopt;
  return HolderId{peer.pid, info->start_ticks};
}

}  // namespace

Result<BrokerServer> BrokerServer::listen(const std::string& path, Requests::Setup setup) {
  const auto address = TRY(address_of(path));
  TRY(remove_abandoned_socket(path, address));
  BrokerServer server;
  server.path_ = path;
  server.listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const mode_t before = ::umask(0177);  // nobody else may connect, not even between bind() and a chmod()
  const int bound = ::bind(server.listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int problem = errno;
  ::umask(before);
  if (bound != 0) return fail(system_error(fmt::format("bind {}", path), problem));
  if (::listen(server.listener_.get(), 64) != 0) return fail(system_error(fmt::format("listen at {}", path), errno));
  struct stat own {};
  if (::lstat(path.c_str(), &own) == 0) server.inode_ = own.st_ino;

  server.processes_ = std::make_shared<Processes>();
  setup.command_of = [processes = server.processes_](HolderId id) -> std::string {
    const auto found = processes->find(id);
    if (found == processes->end()) return "?";
    if (!found->second.ended) {
      // Asked anew each time: a process may change its name, and engines do.
      if (const auto comm = read_pseudo_file(fmt::format("/proc/{}/comm", id.pid)))
        found->second.command = std::string(trim(*comm));
    }
    return found->second.command;
  };
  server.requests_ = std::make_unique<Requests>(std::move(setup));
  return server;
}

Result<void> BrokerServer::run(int stop) {
  for (;;) {
    // The processes stand behind the clients: poll() looks at them in this order, so whoever asked after a process had
    // ended is never seen before that end.
    std::vector<pollfd> fds{{stop, POLLIN, 0}};
    fds.push_back({clients_.size() < most_clients ? listener_.get() : -1, POLLIN, 0});
    for (const auto& client : clients_) {
      short wanted = client->out.empty() ? 0 : POLLOUT;
      if (!client->heard_all && client->in.size() <= longest_request) wanted |= POLLIN;
      fds.push_back({client->socket.get(), wanted, 0});
    }
    const std::size_t first_process = fds.size();
    std::vector<HolderId> watched;
    for (const auto& [id, process] : *processes_) {
      if (process.ended) continue;
      fds.push_back({process.pidfd.get(), POLLIN, 0});
      watched.push_back(id);
    }
    if (::poll(fds.data(), fds.size(), timeout_ms(now())) < 0) {
      if (errno == EINTR) continue;
      return fail(system_error("poll", errno));
    }

    for (std::size_t i = 0; i < watched.size(); ++i)
      if (fds[first_process + i].revents != 0) end_process(watched[i], processes_->at(watched[i]), now());
    for (std::size_t i = 2; i < first_process; ++i) {
      Client& client = *clients_[i - 2];
      if (fds[i].revents & POLLIN) read_from(client);
      // One that sent its question and left is heard to the end.
      else if (fds[i].revents & (POLLHUP | POLLERR | POLLNVAL))
        client.broken = true;
    }
    for (const auto& client : clients_) {
      serve(*client);
      write_to(*client);
    }
    forget_what_is_over();
    if (fds[1].revents & POLLIN) accept_clients();
    if (fds[0].revents != 0) break;
  }
  struct stat at_path {};
  if (::lstat(path_.c_str(), &at_path) == 0 && at_path.st_ino == inode_) ::unlink(path_.c_str());
  return {};
}

void BrokerServer::accept_clients() {
  while (clients_.size() < most_clients) {
    auto client = std::make_unique<Client>();
    client->socket.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client->socket) return;
    const auto process = peer_of(client->socket.get());
    if (!process) continue;  // gone already, or of a namespace that we do not see into
    client->process = *process;
    if (!processes_->contains(*process)) {
      auto pidfd = open_pidfd(process->pid);
      if (!pidfd) continue;
      (*processes_)[*process].pidfd = std::move(*pidfd);
    }
    clients_.push_back(std::move(client));
  }
}

void BrokerServer::end_process(HolderId id, Process& process, TimePoint now) {
  process.ended = true;
  process.pidfd.reset();
  requests_->ended(id, now);
}

void BrokerServer::read_from(Client& client) {
  char buffer[longest_request];
  const ssize_t n = ::recv(client.socket.get(), buffer, sizeof buffer, 0);
  if (n > 0) client.in.append(buffer, static_cast<std::size_t>(n));
  if (n == 0) client.heard_all = true;
  if (n < 0 && errno != EAGAIN && errno != EINTR) client.broken = true;
}

/// Answers as many of the client's lines as can be answered now.
void BrokerServer::serve(Client& client) {
  while (!client.broken) {
    if (client.waiting) {
      const auto answer = requests_->answer_now(*client.waiting, now());
      if (!answer) return;
      client.waiting.reset();
      client.out += *answer;
    }
    const auto end = client.in.find('\n');
    if (end == std::string::npos) {
      if (client.in.size() > longest_request || (client.heard_all && client.out.empty())) client.broken = true;
      return;
    }
    const auto line = std::string_view(client.in).substr(0, end);
    if (processes_->at(client.process).ended && line.starts_with("allocate")) {
      client.broken = true;  // a descriptor outlived its process: nobody is left to hold what it asks for
      return;
    }
    auto answer = requests_->answer(client.process, line, now());
    client.in.erase(0, end + 1);
    if (auto* text = std::get_if<std::string>(&answer))
      client.out += *text;
    else
      client.waiting = std::get<Waiting>(answer);
  }
}

void BrokerServer::write_to(Client& client) {
  while (!client.broken && !client.out.empty()) {
    const ssize_t n = ::send(client.socket.get(), client.out.data(), client.out.size(), MSG_NOSIGNAL);
    if (n > 0) {
      client.out.erase(0, static_cast<std::size_t>(n));
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      client.broken = true;
    }
  }
  if (client.out.size() > longest_unread_answer) client.broken = true;
  if (client.heard_all && client.out.empty() && !client.waiting && client.in.find('\n') == std::string::npos)
    client.broken = true;
}

/// Drops clients that have left, and processes that neither ask nor hold.
void BrokerServer::forget_what_is_over() {
  std::erase_if(clients_, [](const auto& client) { return client->broken; });
  std::erase_if(*processes_, [&](const auto& known) {
    return !requests_->ledger().knows(known.first, now()) &&
           std::none_of(clients_.begin(), clients_.end(),
                        [&](const auto& client) { return client->process == known.first; });
  });
}

/// Until the next moment at which an answer that somebody waits for may be known.
int BrokerServer::timeout_ms(TimePoint now) const {
  std::optional<TimePoint> next;
  for (const auto& client : clients_) {
    if (!client->waiting) continue;
    for (const auto& moment : {std::optional(client->waiting->deadline), requests_->ledger().next_change(now)})
      if (moment && (!next || *moment < *next)) next = moment;
  }
  if (!next) return -1;
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*next - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(wait, 0, std::numeric_limits<int>::max()));
}

}  // namespace gpumod::sim
