defmodule Support.Net do
  @moduledoc "Ports, names and the port mapper of the test run."

  alias Support.OsProcess

  @cookie "conformance"
  def cookie, do: @cookie

  @doc "A TCP port nobody listens on at this moment."
  def free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1}, reuseaddr: true)
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  @doc "The value of the tag `skip` for tests that need IPv6: a reason where there is none."
  def skip_without_ipv6 do
    case :gen_tcp.listen(0, [:inet6, ip: {0, 0, 0, 0, 0, 0, 0, 1}]) do
      {:ok, socket} -> :gen_tcp.close(socket) != :ok
      {:error, why} -> "no IPv6 here: #{why}"
    end
  end

  @doc """
  A node name of this run: `prefix` decides how it compares with others. The tests' own node begins with `m`.
  """
  def name(prefix, host \\ "127.0.0.1") do
    :"#{prefix}#{System.unique_integer([:positive])}x#{System.pid()}@#{host}"
  end

  @doc "The epmd port of this run."
  def epmd_port do
    {:ok, [[port | _] | _]} = :init.get_argument(:epmd_port)
    List.to_integer(port)
  end

  @doc "Starts an epmd on `port` and waits until it answers. It dies with its owner."
  def start_epmd(port) do
    {:ok, epmd} = OsProcess.start_link("epmd", ["-port", Integer.to_string(port)], label: "epmd #{port}")
    Support.Eventually.eventually(fn -> OsProcess.alive?(epmd) and match?({:ok, _}, epmd_names(port)) end)
    epmd
  end

  @doc "Asks an epmd for all its names."
  def epmd_names(port \\ epmd_port()), do: epmd_request(port, "n")

  @doc "Asks an epmd for one name: a map of the answer's fields, or `:unknown`."
  def epmd_lookup(node, port \\ epmd_port()) do
    case epmd_request(port, "z" <> alive(node)) do
      {:ok, <<119, 0, tcp::16, type, proto, highest::16, lowest::16, n::16, name::binary-size(n), _::binary>>} ->
        %{port: tcp, type: type, protocol: proto, highest: highest, lowest: lowest, name: name}

      {:ok, <<119, _error>>} ->
        :unknown
    end
  end

  @doc "The port a node listens on."
  def port_of(node, epmd_port \\ epmd_port()), do: epmd_lookup(node, epmd_port).port

  @doc "Registers `node` as a visible node on `port`; the answered socket is the registration."
  def epmd_register(node, port) do
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, epmd_port(), [:binary, active: false])
    name = alive(node)
    request = <<"x", port::16, 77, 0, 6::16, 5::16, byte_size(name)::16, name::binary, 0::16>>
    :ok = :gen_tcp.send(socket, <<byte_size(request)::16, request::binary>>)
    {:ok, <<118, 0, _creation::32>>} = :gen_tcp.recv(socket, 6, 10_000)
    socket
  end

  defp epmd_request(port, request) do
    with {:ok, socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false]) do
      :ok = :gen_tcp.send(socket, <<byte_size(request)::16, request::binary>>)
      answer = until_closed(socket, "")
      :gen_tcp.close(socket)
      {:ok, answer}
    end
  end

  defp until_closed(socket, read) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, more} -> until_closed(socket, read <> more)
      {:error, :closed} -> read
    end
  end

  def alive(node), do: node |> Atom.to_string() |> String.split("@") |> hd()
end
