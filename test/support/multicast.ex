defmodule Support.Multicast do
  @moduledoc "Multicast on the loopback interface."

  @group {233, 252, 1, 32}
  @interface {127, 0, 0, 1}

  @doc "The value of the tag `skip` for tests that need it: a reason where there is none."
  def skip do
    case port() do
      {:ok, _port} -> false
      {:error, why} -> "loopback has no multicast here: #{inspect(why)}"
    end
  end

  @doc "A port on which nobody is heard; an error where there is no multicast."
  def port do
    with {:ok, socket} <- :gen_udp.open(0, options()),
         {:ok, port} <- :inet.port(socket),
         :ok <- :gen_udp.send(socket, @group, port, "probe"),
         {:ok, _} <- :gen_udp.recv(socket, 0, 5_000) do
      :gen_udp.close(socket)
      {:ok, port}
    end
  end

  def port! do
    {:ok, port} = port()
    port
  end

  @doc "A socket that hears the group at this port, and sends to it."
  def open(port) do
    {:ok, socket} = :gen_udp.open(port, options())
    socket
  end

  defp options do
    [:binary, active: false, reuseaddr: true, multicast_if: @interface, multicast_loop: true] ++
      [add_membership: {@group, @interface}]
  end
end
