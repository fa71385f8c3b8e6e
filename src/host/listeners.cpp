// Who listens on a TCP port: first which sockets do, then which processes hold them.
//
// The kernel is asked over sock_diag(7), which walks its listeners alone: /proc/net/tcp walks every connection of the
// machine and every bucket of their hash table, 2 ms on a quiet machine. It is the fallback where the kernel was built
// without inet_diag or a sandbox forbids netlink. With each socket the kernel names the cgroup in which it was made; a
// caller who knows that cgroup, a unit's of this very run, needs no more. For other holders there is nothing but
// looking at descriptors, so those who are likely to hold the socket are looked at first.
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "host/proc_text.h"
#include "host/processes.h"

namespace gpumod {

namespace {

struct ListeningSocket {
  std::uint16_t port = 0;
  std::uint32_t uid = 0;
  std::uint64_t inode = 0;
  std::uint64_t control_group_id = 0;
};

using Ports = std::set<std::uint16_t>;

bool send_dump_request(int netlink, int family) {
  struct {
    nlmsghdr header;
    inet_diag_req_v2 question;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.question.sdiag_family = static_cast<std::uint8_t>(family);
  request.question.sdiag_protocol = IPPROTO_TCP;
  request.question.idiag_states = 1U << TCP_LISTEN;
  return ::send(netlink, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request);
}

/// The kernel tells it since Linux 5.8; before, this is 0.
std::uint64_t control_group_id_of(const nlmsghdr* header) {
  const auto* attribute = reinterpret_cast<const rtattr*>(static_cast<const char*>(NLMSG_DATA(header)) +
                                                          NLMSG_ALIGN(sizeof(inet_diag_msg)));
  auto left = static_cast<std::size_t>(header->nlmsg_len - NLMSG_SPACE(sizeof(inet_diag_msg)));
  for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
    std::uint64_t id = 0;
    if (attribute->rta_type != INET_DIAG_CGROUP_ID || RTA_PAYLOAD(attribute) != sizeof id) continue;
    std::memcpy(&id, RTA_DATA(attribute), sizeof id);
    return id;
  }
  return 0;
}

/// One dump, up to its end. False: the kernel does not answer this.
bool receive_dump(int netlink, const Ports& ports, std::vector<ListeningSocket>& sockets) {
  alignas(nlmsghdr) std::array<char, 32 * 1024> buffer;
  for (;;) {
    const ssize_t size = ::recv(netlink, buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return false;
    auto left = static_cast<std::size_t>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_type == NLMSG_DONE) return true;
      if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || header->nlmsg_len < NLMSG_LENGTH(sizeof(inet_diag_msg)))
        return false;
      const auto* socket = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
      const auto port = ntohs(socket->id.idiag_sport);
      if (ports.contains(port))
        sockets.push_back({port, socket->idiag_uid, socket->idiag_inode, control_group_id_of(header)});
    }
  }
}

bool ask_kernel(const Ports& ports, std::vector<ListeningSocket>& sockets) {
  const Fd netlink(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!netlink) return false;
  for (const int family : {AF_INET, AF_INET6}) {
    if (!send_dump_request(netlink.get(), family) || !receive_dump(netlink.get(), ports, sockets)) return false;
  }
  return true;
}

/// /proc/net/tcp and tcp6, as proc_pid_net(5) lays them out:
/// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …
void read_table(const char* table, const Ports& ports, std::vector<ListeningSocket>& sockets) {
  const auto text = read_pseudo_file(table, 256 << 20);
  if (!text) return;
  for (const auto line : split_lines(*text)) {
    const auto fields = fields_of(line);
    constexpr std::string_view listen = "0A";
    if (fields.size() < 10 || fields[3] != listen) continue;
    const auto colon = fields[1].rfind(':');
    if (colon == std::string_view::npos) continue;
    const auto port = number_in<std::uint16_t>(fields[1].substr(colon + 1), 16);
    const auto uid = number_in<std::uint32_t>(fields[7]);
    const auto inode = number_in<std::uint64_t>(fields[9]);
    if (port && uid && inode && ports.contains(*port)) sockets.push_back({*port, *uid, *inode, 0});
  }
}

std::optional<std::uint64_t> socket_behind(int directory, const char* descriptor) {
  char target[64];
  const ssize_t size = ::readlinkat(directory, descriptor, target, sizeof target);
  constexpr std::string_view prefix = "socket:[";
  std::string_view text(target, size < 0 ? 0 : static_cast<std::size_t>(size));
  if (!text.starts_with(prefix) || !text.ends_with(']')) return std::nullopt;
  text.remove_prefix(prefix.size());
  text.remove_suffix(1);
  return number_in<std::uint64_t>(text);
}

class Holders {
 public:
  Holders(const std::vector<ListeningSocket>& sockets, const std::set<std::uint64_t>& known) {
    // One listener a port and owner: a server that binds IPv4 and IPv6, or shares the port among workers, is one.
    for (const auto& socket : sockets) {
      auto& listener = found_[{socket.port, socket.uid}];
      if (known.contains(socket.control_group_id)) {
        listener.control_group_id = socket.control_group_id;
        continue;
      }
      by_inode_[socket.inode] = &listener.pids;
      unheld_.insert(socket.inode);
    }
  }

  bool complete() const { return unheld_.empty(); }

  void look_at(pid_t pid) {
    DIR* descriptors = ::opendir(proc_path(pid, "fd").c_str());
    if (!descriptors) return;
    while (const dirent* entry = ::readdir(descriptors)) {
      const auto inode = socket_behind(::dirfd(descriptors), entry->d_name);
      const auto holder = inode ? by_inode_.find(*inode) : by_inode_.end();
      if (holder == by_inode_.end()) continue;
      holder->second->insert(pid);
      unheld_.erase(*inode);
    }
    ::closedir(descriptors);
  }

  std::vector<Listener> listeners() const {
    std::vector<Listener> all;
    for (const auto& [who, found] : found_)
      all.push_back(Listener{who.first, who.second, {found.pids.begin(), found.pids.end()}, found.control_group_id});
    return all;
  }

 private:
  struct Found {
    std::set<pid_t> pids;
    std::uint64_t control_group_id = 0;
  };

  std::map<std::pair<std::uint16_t, std::uint32_t>, Found> found_;
  std::unordered_map<std::uint64_t, std::set<pid_t>*> by_inode_;
  std::unordered_set<std::uint64_t> unheld_;
};

}  // namespace

std::vector<Listener> listeners_on(const std::vector<std::uint16_t>& ports, const LikelyHolders& likely) {
  const Ports wanted(ports.begin(), ports.end());
  std::vector<ListeningSocket> sockets;
  if (!ask_kernel(wanted, sockets)) {
    sockets.clear();
    read_table("/proc/self/net/tcp", wanted, sockets);
    read_table("/proc/self/net/tcp6", wanted, sockets);
  }
  Holders holders(sockets, likely.known);
  if (!holders.complete())
    for (const pid_t pid : likely.pids)
      holders.look_at(pid);
  if (!holders.complete())
    for (const pid_t pid : all_pids())
      holders.look_at(pid);
  return holders.listeners();
}

bool is_foreign_address(const std::string& address) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;  // asks nobody
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (address.empty() || ::getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) return false;
  const Fd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const bool foreign = socket && ::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0 && errno == EADDRNOTAVAIL;
  ::freeaddrinfo(found);
  return foreign;
}

}  // namespace gpumod
