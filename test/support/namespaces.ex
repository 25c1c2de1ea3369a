defmodule Support.Namespaces do
  @moduledoc """
  A network of the test's own: network namespaces on one switch (Linux, `ip`, `nft`, root), whose links it cuts.

  Everything is inside namespaces that it made, and goes with the test.
  """

  @doc """
  Makes `count` hosts on a switch, which end with the test: `%{host: "10.96.0.1", through: [...], port: "tbu1"}`, where
  `through` is the command that runs programs there.
  """
  def start(count) do
    prefix = "tb#{System.pid()}"
    switch = prefix <> "sw"
    names = [switch | for(n <- 1..count, do: "#{prefix}n#{n}")]

    ExUnit.Callbacks.on_exit(fn ->
      for name <- names, do: System.cmd("ip", ["netns", "del", name], stderr_to_stdout: true)
    end)

    ip(~w(netns add #{switch}))
    ip(~w(-n #{switch} link add br0 type bridge))
    ip(~w(-n #{switch} link set br0 up))

    for n <- 1..count do
      name = "#{prefix}n#{n}"
      port = "tbu#{n}"
      host = "10.96.0.#{n}"
      ip(~w(netns add #{name}))
      # Born where it belongs: the names need not differ from those of other runs.
      ip(~w(-n #{switch} link add #{port} type veth peer name eth0 netns #{name}))
      ip(~w(-n #{name} addr add #{host}/24 dev eth0))
      for {at, link} <- [{name, "eth0"}, {name, "lo"}], do: ip(~w(-n #{at} link set #{link} up))
      ip(~w(-n #{switch} link set #{port} master br0 up))
      %{host: host, through: ~w(ip netns exec #{name}), port: port, switch: switch}
    end
  end

  @doc """
  What the switch drops from now on, instead of what it dropped before; `[]` heals everything.

  - `{:cut, from, to}` - all packets from hosts to hosts: one way.
  - `{:lose, percent}` - of all packets.
  """
  def drop([%{switch: switch} | _], rules) do
    lines =
      Enum.map_join(rules, "\n", fn
        {:cut, from, to} -> "iifname #{set(from)} oifname #{set(to)} counter drop"
        {:lose, percent} -> "numgen random mod 100 < #{percent} counter drop"
      end)

    script = """
    table bridge faults
    delete table bridge faults
    table bridge faults {
      chain forward {
        type filter hook forward priority 0
        #{lines}
      }
    }
    """

    file = Path.join(System.tmp_dir!(), "tiebeam_#{switch}.nft")
    File.write!(file, script)
    run("ip", ["netns", "exec", switch, "nft", "-f", file])
    File.rm!(file)
  end

  @doc "How many packets the present rules have dropped."
  def dropped([%{switch: switch} | _]) do
    {text, 0} = System.cmd("ip", ~w(netns exec #{switch} nft list table bridge faults))
    Enum.sum(for [_, count] <- Regex.scan(~r/counter packets (\d+)/, text), do: String.to_integer(count))
  end

  defp set(hosts), do: "{ " <> Enum.map_join(hosts, ", ", &inspect(&1.port)) <> " }"

  defp ip(arguments), do: run("ip", arguments)

  defp run(command, arguments) do
    case System.cmd(command, arguments, stderr_to_stdout: true) do
      {_, 0} -> :ok
      {output, status} -> raise "#{Enum.join([command | arguments], " ")}: status #{status}: #{output}"
    end
  end
end
