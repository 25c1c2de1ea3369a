defmodule Tiebeam.Discovery.Gossip do
  @moduledoc """
  Multicasts the own name, and finds whoever does so, too: on the wire that libcluster's `Cluster.Strategy.Gossip` speaks.

      {Tiebeam, name: MyApp.Cluster, discovery: [{Tiebeam.Discovery.Gossip, secret: "somepassword"}]}

  BEAM nodes with libcluster, BEAM nodes with this, and Rust nodes with `tiebeam node --discover gossip` find one another, in the same
  group and port and with the same secret. Each tells its name at once, and then again after one to 5,000 milliseconds. IPv4 only.

  The secret keeps clusters on one network apart and their names unseen. It proves nothing: old packets can be sent again.
  Who belongs to a cluster is decided by its cookie.

  ## Options

  They are libcluster's.

  - `:secret` (a binary, or a function that answers one) - Encrypts what is sent, and hears only what is encrypted with the same.
    Default: none.
  - `:port` (a number) - The port that all nodes send to and listen on. Default: 45892.
  - `:multicast_addr` (an address) - The group that all nodes join and send to; with `:broadcast_only` the address to broadcast to.
    Default: `{233, 252, 1, 32}`; releases of libcluster before 3.3.0 used `{230, 1, 1, 251}`.
  - `:multicast_if` (an address) - The address of the interface to use. Default: what the system chooses.
  - `:multicast_ttl` (a number) - Over how many routers a packet may go. Default: 1, the local network.
  - `:broadcast_only` (true or false) - Broadcast instead: give `multicast_addr: {255, 255, 255, 255}` as well. Default: `false`.
  - `:if_addr` (an address) - The address to listen on. Default: all.

  An address is a tuple or a string. And of the options of all, `:connect`: see `Tiebeam.Discovery`.
  """

  @behaviour Tiebeam.Discovery

  alias Tiebeam.Discovery
  alias Tiebeam.Discovery.Gossip.Packet

  # The longest pause between two heartbeats, as libcluster's.
  @max_pause 5_000

  # Packets that are taken at once. The pause between two batches bounds what a flood of them costs.
  @batch 64

  # How soon a node without a name looks again whether it has one.
  @no_name_pause 1_000

  @impl true
  def init(options) do
    options =
      Discovery.options!(__MODULE__, options, [
        {:secret, nil, &secret?/1, "a binary or a function without arguments"},
        {:port, 45_892, &(&1 in 1..0xFFFF), "a port"},
        {:multicast_addr, {233, 252, 1, 32}, &address?/1, "an IPv4 address"},
        {:multicast_if, nil, &(&1 == nil or address?(&1)), "an IPv4 address"},
        {:multicast_ttl, 1, &(&1 in 0..255), "a number up to 255"},
        {:broadcast_only, false, &is_boolean/1, "true or false"},
        {:if_addr, {0, 0, 0, 0}, &address?/1, "an IPv4 address"}
      ])

    key = key(options.secret)

    %{
      # A function, so that it is printed nowhere.
      key: fn -> key end,
      port: options.port,
      target: address(options.multicast_addr),
      options: socket_options(options),
      socket: nil,
      # When the next heartbeat is due, in milliseconds.
      next: nil
    }
  end

  # It waits for packets.
  @impl true
  def interval, do: 0

  @impl true
  def find(%{socket: nil} = state) do
    case :gen_udp.open(state.port, state.options) do
      {:ok, socket} -> find(%{state | socket: socket, next: now()})
      {:error, reason} -> {:error, {:listen, state.port, reason}, state}
    end
  end

  def find(state) do
    if Node.alive?() do
      listen(state)
    else
      Process.sleep(@no_name_pause)
      {:some, [], state}
    end
  end

  defp listen(state) do
    case :gen_udp.recv(state.socket, 0, max(state.next - now(), 0)) do
      {:ok, {_address, _port, packet}} -> {:some, names(state, [packet], @batch - 1), state}
      {:error, :timeout} -> tell(state)
      {:error, reason} -> close(state, {:receive, reason})
    end
  end

  defp tell(state) do
    name = Atom.to_string(node())
    packet = Packet.write(name, state.key.(), :crypto.strong_rand_bytes(16))

    case :gen_udp.send(state.socket, state.target, state.port, packet) do
      :ok -> listen(%{state | next: now() + :rand.uniform(@max_pause)})
      {:error, reason} -> close(state, {:send, state.target, reason})
    end
  end

  # The next look opens another one.
  defp close(state, reason) do
    :gen_udp.close(state.socket)
    {:error, reason, %{state | socket: nil}}
  end

  defp names(state, packets, 0),
    do: for(packet <- packets, {:ok, name} <- [Packet.read(packet, state.key.())], do: name)

  defp names(state, packets, left) do
    case :gen_udp.recv(state.socket, 0, 0) do
      {:ok, {_address, _port, packet}} -> names(state, [packet | packets], left - 1)
      {:error, _nothing_or_next_time} -> names(state, packets, 0)
    end
  end

  defp socket_options(options) do
    # Nodes of one host share the port, those with libcluster included.
    common = [:binary, active: false, ip: address(options.if_addr), reuseaddr: true, broadcast: true]
    # A packet that is longer is cut, and then none.
    common ++ [buffer: Packet.max() + 1] ++ reuse_port() ++ multicast(options)
  end

  defp multicast(%{broadcast_only: true}), do: []

  defp multicast(options) do
    interface = options.multicast_if && address(options.multicast_if)
    through = if interface, do: [multicast_if: interface], else: []

    through ++
      [
        multicast_ttl: options.multicast_ttl,
        multicast_loop: true,
        add_membership: {address(options.multicast_addr), interface || {0, 0, 0, 0}}
      ]
  end

  # Of the BSDs, where sharing a port needs it: SOL_SOCKET, SO_REUSEPORT.
  defp reuse_port do
    case :os.type() do
      {:unix, system} when system in [:darwin, :freebsd, :openbsd, :netbsd] ->
        [{:raw, 0xFFFF, 0x0200, <<1::native-32>>}]

      _other ->
        []
    end
  end

  defp secret?(secret), do: secret == nil or is_binary(secret) or is_function(secret, 0)

  defp key(nil), do: nil
  defp key(secret) when is_binary(secret), do: Packet.key(secret)
  defp key(secret) when is_function(secret, 0), do: key(secret.())

  defp address?(address), do: match?({:ok, _}, parse(address))

  defp address(address) do
    {:ok, address} = parse(address)
    address
  end

  defp parse(address) when is_binary(address), do: :inet.parse_ipv4strict_address(to_charlist(address))

  defp parse(address) when tuple_size(address) == 4,
    do: if(:inet.is_ip_address(address), do: {:ok, address}, else: :error)

  defp parse(_other), do: :error

  defp now, do: System.monotonic_time(:millisecond)
end
