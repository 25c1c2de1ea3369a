defmodule Support.DnsServer do
  @moduledoc "A name server of the tests' own on loopback: answers from a table, over UDP."
  use GenServer

  def start_link(opts \\ []), do: GenServer.start_link(__MODULE__, opts)

  @doc "Where it listens."
  def address(server), do: {{127, 0, 0, 1}, GenServer.call(server, :port)}

  @doc """
  The records of a name: `[{:a, {10, 0, 0, 1}}, {:srv, {0, 0, 4369, 'host'}}]`; `:broken` is a failure of the server. A name that
  was not set does not exist.
  """
  def set(server, name, records), do: GenServer.call(server, {:set, name, records})

  @impl true
  def init(_opts) do
    {:ok, socket} = :gen_udp.open(0, [:binary, active: true, ip: {127, 0, 0, 1}])
    {:ok, %{socket: socket, zone: %{}}}
  end

  @impl true
  def handle_call(:port, _from, state) do
    {:ok, port} = :inet.port(state.socket)
    {:reply, port, state}
  end

  def handle_call({:set, name, records}, _from, state) do
    {:reply, :ok, put_in(state.zone[name], records)}
  end

  @impl true
  def handle_info({:udp, socket, address, port, packet}, state) do
    {:ok, message} = :inet_dns.decode(packet)
    :gen_udp.send(socket, address, port, :inet_dns.encode(answer(message, state.zone)))
    {:noreply, state}
  end

  defp answer(message, zone) do
    [question] = :inet_dns.msg(message, :qdlist)
    domain = :inet_dns.dns_query(question, :domain)
    type = :inet_dns.dns_query(question, :type)

    {code, records} = found(zone[to_string(domain)])

    answers =
      for {^type, data} <- records do
        :inet_dns.make_rr(domain: domain, type: type, class: :in, ttl: 1, data: data)
      end

    header = :inet_dns.make_header(:inet_dns.msg(message, :header), qr: true, aa: true, ra: true, rcode: code)
    :inet_dns.make_msg(message, header: header, anlist: answers, arlist: [])
  end

  # Codes: NXDOMAIN, SERVFAIL, no error.
  defp found(nil), do: {3, []}
  defp found(:broken), do: {2, []}
  defp found(records), do: {0, records}
end
