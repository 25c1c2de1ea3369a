defmodule Tiebeam.Discovery.Resolver do
  @moduledoc false
  # Questions to name servers: all addresses, or all SRV targets, of a name. Blocks while it asks.

  alias Tiebeam.Discovery.Name

  # How long one name server that is given may take to answer one question, and how often it is asked. For the system's,
  # inet has options of its own.
  @answer_time 2_000
  @retries 2

  # How long one question may take in all, with several servers.
  @total_time 15_000

  @typedoc "Name servers to ask instead of the system's; `nil` for those."
  @type servers :: [{:inet.ip_address(), :inet.port_number()}] | nil

  @doc "All IPv4 and IPv6 addresses of a name; `:some` if one of the two questions was not answered."
  @spec addresses(String.t(), servers) ::
          {:ok | :some, [:inet.ip_address()]} | {:error, {type :: atom, reason :: term}}
  def addresses(name, servers) do
    case {records(name, :a, servers), records(name, :aaaa, servers)} do
      {{:ok, v4}, {:ok, v6}} -> {:ok, v4 ++ v6}
      {{:ok, [_ | _] = v4}, {:error, _reason}} -> {:some, v4}
      {{:error, _reason}, {:ok, [_ | _] = v6}} -> {:some, v6}
      {{:error, reason}, _v6} -> {:error, {:a, reason}}
      {_v4, {:error, reason}} -> {:error, {:aaaa, reason}}
    end
  end

  @doc "The targets of all SRV records of a name."
  @spec targets(String.t(), servers) :: {:ok, [String.t()]} | {:error, {:srv, reason :: term}}
  def targets(name, servers) do
    case records(name, :srv, servers) do
      {:ok, records} -> {:ok, for({_priority, _weight, _port, target} <- records, do: to_string(target))}
      {:error, reason} -> {:error, {:srv, reason}}
    end
  end

  # None if the servers say that there are none.
  #
  # The system's name servers, search list and all: inet reads `/etc/resolv.conf`.
  defp records(name, type, nil) do
    case :inet_res.getbyname(to_charlist(name), type, @total_time) do
      {:ok, {:hostent, _name, _aliases, _type, _length, records}} -> {:ok, records}
      {:error, reason} -> answered(reason)
    end
  end

  defp records(name, type, servers) do
    name = name |> String.trim_trailing(".") |> to_charlist()
    options = [nameservers: servers, timeout: @answer_time, retry: @retries]

    case :inet_res.resolve(name, :in, type, options, @total_time) do
      {:ok, message} ->
        answers = :inet_dns.msg(message, :anlist)
        {:ok, for(record <- answers, :inet_dns.rr(record, :type) == type, do: :inet_dns.rr(record, :data))}

      {:error, {reason, _message}} ->
        answered(reason)

      {:error, reason} ->
        answered(reason)
    end
  end

  defp answered(:nxdomain), do: {:ok, []}
  defp answered(reason), do: {:error, reason}

  @doc "The options of all discoveries that ask name servers, for `Tiebeam.Discovery.options!/3`."
  @spec options() :: [{atom, default :: term, (term -> boolean), String.t()}]
  def options do
    [
      {:basename, nil, &Name.basename?/1, "the name of a node before the @"},
      {:nameservers, nil, &servers?/1, "a list of {address, port}"}
    ]
  end

  defp servers?(nil), do: true

  defp servers?(servers) when is_list(servers) and servers != [] do
    Enum.all?(servers, fn
      {address, port} -> :inet.is_ip_address(address) and port in 1..0xFFFF
      _other -> false
    end)
  end

  defp servers?(_other), do: false
end
