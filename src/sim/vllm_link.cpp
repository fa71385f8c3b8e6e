#include "sim/vllm_link.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <sys/socket.h>

namespace gpumod::sim {

namespace json = boost::json;

VllmLink::VllmLink(Loop& loop, Fd socket) : loop_(loop), socket_(std::move(socket)) {}

Task<std::optional<json::object>> VllmLink::receive() {
  for (;;) {
    const auto end = incoming_.find('\n');
    if (end != std::string::npos) {
      boost::system::error_code problem;
      auto value = json::parse(std::string_view(incoming_).substr(0, end), problem);
      incoming_.erase(0, end + 1);
      if (problem || !value.is_object())
        detail::die("the two halves of the simulated vLLM do not understand each other");
      co_return std::move(value.get_object());
    }
    char buffer[16384];
    const auto got = ::recv(socket_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) {
      incoming_.append(buffer, static_cast<std::size_t>(got));
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) co_return std::nullopt;
    const auto ready = co_await wait_ready(socket_.get(), Readiness::readable);
    if (!ready) co_return std::nullopt;
  }
}

void VllmLink::send(const json::object& message) {
  outgoing_ += json::serialize(message);
  outgoing_ += '\n';
  if (flushing_) return;
  write_some();
  if (outgoing_.empty()) return;
  flushing_ = true;
  loop_.spawn(flush());
}

void VllmLink::write_some() {
  while (!outgoing_.empty()) {
    const auto sent = ::send(socket_.get(), outgoing_.data(), outgoing_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0)
      outgoing_.erase(0, static_cast<std::size_t>(sent));
    else if (errno == EAGAIN)
      return;
    else if (errno != EINTR)
      outgoing_.clear();
  }
}

Task<void> VllmLink::flush() {
  while (!outgoing_.empty()) {
    const auto ready = co_await wait_ready(socket_.get(), Readiness::writable);
    if (!ready) outgoing_.clear();
    write_some();
  }
  flushing_ = false;
}

}  // namespace gpumod::sim
